//! Checks a cluster for `flux-recv check`: served versions, rights and objects.

use std::collections::BTreeSet;

use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::{ListParams, PartialObjectMeta, PostParams};
use kube::core::{ApiResource, DynamicObject, TypeMeta};
use kube::{Api, Client};

use super::connection::ApiConnection;
use super::resources::Resources;
use super::{describe, status_code};
use crate::event::repository_url::RepositoryUrl;
use crate::flux::{Kind, KindInfo, Target};

/// The result of checking one kind in one scope.
#[derive(Debug)]
pub struct KindAccess {
    pub kind: Kind,
    /// The namespace; `None` for the whole cluster.
    pub namespace: Option<String>,
    /// The served version that flux-recv would use, if there is one.
    pub version: Option<String>,
    /// Of `list`, `watch` and `patch`, those that are not allowed.
    pub missing: Vec<&'static str>,
    /// The objects that there are, if they may be listed.
    pub objects: Option<Vec<Target>>,
}

/// The verbs that serving needs for each kind.
pub const REQUIRED_VERBS: [&str; 3] = ["list", "watch", "patch"];

/// Reviews the access to these kinds, in each of the namespaces or in the whole cluster.
///
/// # Errors
/// When the API server does not answer.
pub async fn examine(
    connection: &ApiConnection,
    kinds: &BTreeSet<Kind>,
    namespaces: &[String],
) -> anyhow::Result<Vec<KindAccess>> {
    let client = connection.client();
    let places: Vec<Option<&str>> = match namespaces {
        [] => vec![None],
        some => some.iter().map(|namespace| Some(namespace.as_str())).collect(),
    };
    let mut found = Vec::new();
    for info in kinds.iter().map(|kind| kind.info()) {
        let resource = Resources::default().discover(&client, info.kind).await.map_err(failed)?;
        for place in &places {
            found.push(examine_kind(&client, info, resource.as_ref(), *place).await?);
        }
    }
    Ok(found)
}

async fn examine_kind(
    client: &Client,
    info: &KindInfo,
    resource: Option<&ApiResource>,
    namespace: Option<&str>,
) -> anyhow::Result<KindAccess> {
    let mut missing = Vec::new();
    for verb in REQUIRED_VERBS {
        if !may(client, info, verb, namespace).await? {
            missing.push(verb);
        }
    }
    let objects = match resource {
        Some(resource) if !missing.contains(&"list") => {
            Some(list(client, info.kind, resource, namespace).await?)
        }
        _ => None,
    };
    Ok(KindAccess {
        kind: info.kind,
        namespace: namespace.map(str::to_owned),
        version: resource.map(|resource| resource.version.clone()),
        missing,
        objects,
    })
}

async fn may(client: &Client, info: &KindInfo, verb: &str, namespace: Option<&str>) -> anyhow::Result<bool> {
    let attributes = ResourceAttributes {
        group: Some(info.group.to_owned()),
        resource: Some(info.plural.to_owned()),
        verb: Some(verb.to_owned()),
        namespace: namespace.map(str::to_owned),
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec {
        resource_attributes: Some(attributes),
        ..SelfSubjectAccessReviewSpec::default()
    };
    let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
    let answer =
        Api::<SelfSubjectAccessReview>::all(client.clone()).create(&PostParams::default(), &review).await;
    Ok(answer.map_err(failed)?.status.is_some_and(|status| status.allowed))
}

async fn list(
    client: &Client,
    kind: Kind,
    resource: &ApiResource,
    namespace: Option<&str>,
) -> anyhow::Result<Vec<Target>> {
    let api: Api<DynamicObject> = match namespace {
        None => Api::all_with(client.clone(), resource),
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
    };
    let mut found = Vec::new();
    let mut page = ListParams::default().limit(500);
    loop {
        let list: kube::core::ObjectList<PartialObjectMeta<DynamicObject>> =
            api.list_metadata(&page).await.map_err(failed)?;
        found.extend(list.items.into_iter().filter_map(|object| {
            let (namespace, name) = (object.metadata.namespace?, object.metadata.name?);
            Some(Target { kind, namespace, name })
        }));
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(found),
        }
    }
}

/// One object as the API server has it.
///
/// # Errors
/// When the object does not exist, or may not be read.
pub async fn object(connection: &ApiConnection, target: &Target) -> anyhow::Result<serde_json::Value> {
    let client = connection.client();
    let resource = Resources::default().discover(&client, target.kind).await.map_err(failed)?;
    let resource = resource.ok_or_else(|| anyhow::anyhow!("the cluster has no {}", target.kind))?;
    let api: Api<DynamicObject> = Api::namespaced_with(client, &target.namespace, &resource);
    Ok(serde_json::to_value(api.get(&target.name).await.map_err(failed)?)?)
}

/// The objects of some kinds as the API server lists them.
pub struct ListedObjects {
    pub manifests: Vec<serde_json::Value>,
    /// Kinds that may not be listed, each with where.
    pub unlistable: Vec<(Kind, Vec<String>)>,
}

/// Lists the objects of these kinds in the namespaces, or in the whole cluster.
///
/// # Errors
/// When the API server does not answer.
pub async fn objects(
    connection: &ApiConnection,
    kinds: &BTreeSet<Kind>,
    namespaces: &[String],
) -> anyhow::Result<ListedObjects> {
    let client = connection.client();
    let mut listed = ListedObjects { manifests: Vec::new(), unlistable: Vec::new() };
    for kind in kinds {
        let Some(resource) = Resources::default().discover(&client, *kind).await.map_err(failed)? else {
            continue;
        };
        let places: Vec<(Api<DynamicObject>, String)> = match namespaces {
            [] => vec![(Api::all_with(client.clone(), &resource), "in the whole cluster".to_owned())],
            some => some
                .iter()
                .map(|name| (Api::namespaced_with(client.clone(), name, &resource), format!("in {name}")))
                .collect(),
        };
        let mut forbidden = Vec::new();
        for (api, place) in places {
            match pages(&api).await {
                Ok(objects) => listed.manifests.extend(objects.into_iter().filter_map(|mut object| {
                    // Items of a list do not name their kind.
                    object.types = Some(TypeMeta {
                        api_version: resource.api_version.clone(),
                        kind: resource.kind.clone(),
                    });
                    serde_json::to_value(object).ok()
                })),
                Err(err) if status_code(&err) == Some(403) => forbidden.push(place),
                Err(err) => return Err(failed(err)),
            }
        }
        if !forbidden.is_empty() {
            listed.unlistable.push((*kind, forbidden));
        }
    }
    Ok(listed)
}

async fn pages(api: &Api<DynamicObject>) -> Result<Vec<DynamicObject>, kube::Error> {
    let mut found = Vec::new();
    let mut page = ListParams::default().limit(500);
    loop {
        let list = api.list(&page).await?;
        found.extend(list.items);
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(found),
        }
    }
}

/// The name under which the API server knows this client, if it tells.
pub async fn user_name(connection: &ApiConnection) -> Option<String> {
    let api = Api::<SelfSubjectReview>::all(connection.client());
    let review = api.create(&PostParams::default(), &SelfSubjectReview::default()).await.ok()?;
    review.status?.user_info?.username
}

/// The repositories that GitRepositories fetch, in these namespaces or in the whole cluster; those whose
/// URL cannot be read are left out, and so is a namespace that may not be listed.
///
/// # Errors
/// When the API server does not answer.
pub async fn git_repositories(
    connection: &ApiConnection,
    namespaces: &[String],
) -> anyhow::Result<Vec<(Target, RepositoryUrl)>> {
    let client = connection.client();
    let kind = Kind::GitRepository;
    let resource = Resources::default().discover(&client, kind).await.map_err(failed)?;
    let Some(resource) = resource else { return Ok(Vec::new()) };
    let apis: Vec<Api<DynamicObject>> = match namespaces {
        [] => vec![Api::all_with(client, &resource)],
        some => some.iter().map(|name| Api::namespaced_with(client.clone(), name, &resource)).collect(),
    };
    let mut found = Vec::new();
    for api in apis {
        let objects = match pages(&api).await {
            Ok(objects) => objects,
            Err(err) if status_code(&err) == Some(403) => continue,
            Err(err) => return Err(failed(err)),
        };
        found.extend(objects.into_iter().filter_map(|object| {
            let url = RepositoryUrl::parse(object.data.pointer("/spec/url")?.as_str()?).ok()?;
            let namespace = object.metadata.namespace?;
            Some((Target { kind, namespace, name: object.metadata.name? }, url))
        }));
    }
    Ok(found)
}

pub(super) fn failed(err: kube::Error) -> anyhow::Error {
    anyhow::anyhow!("the API server: {}", describe(&err))
}
