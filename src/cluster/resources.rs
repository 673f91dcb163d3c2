//! Discovers the API version in which the API server serves each kind.

use std::collections::HashMap;

use kube::Client;
use kube::core::{ApiResource, GroupVersion};
use parking_lot::RwLock;

use super::status_code;
use crate::flux::Kind;

/// The resources that discovery has found, by kind.
#[derive(Default)]
pub(super) struct Resources {
    served: RwLock<HashMap<Kind, ApiResource>>,
}

impl Resources {
    /// The resource of a kind, as found last.
    pub(super) fn get(&self, kind: Kind) -> Option<ApiResource> {
        self.served.read().get(&kind).cloned()
    }

    /// Finds the version of the kind that the API server serves, best first; `None` if none. What was
    /// found before stays then: one replica of the API server may lag behind.
    pub(super) async fn discover(
        &self,
        client: &Client,
        kind: Kind,
    ) -> Result<Option<ApiResource>, kube::Error> {
        let found = find(client, kind).await?;
        if let Some(resource) = &found {
            let mut served = self.served.write();
            served.insert(kind, resource.clone());
        }
        Ok(found)
    }
}

async fn find(client: &Client, kind: Kind) -> Result<Option<ApiResource>, kube::Error> {
    let info = kind.info();
    for version in info.versions {
        let group_version = GroupVersion::gv(info.group, version);
        let listed = match client.list_api_group_resources(&group_version.api_version()).await {
            Ok(listed) => listed,
            Err(err) if status_code(&err) == Some(404) => continue,
            Err(err) => return Err(err),
        };
        if listed.resources.iter().any(|resource| resource.name == info.plural) {
            let gvk = group_version.with_kind(info.name);
            return Ok(Some(ApiResource::from_gvk_with_plural(&gvk, info.plural)));
        }
    }
    Ok(None)
}
