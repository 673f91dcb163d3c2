//! Receivers and Secrets as the API server gives them.

use std::collections::BTreeMap;

use kube::core::{ApiResource, GroupVersionKind};
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::super::watch::Watchable;
use super::Name;
use crate::flux_receiver::{FluxReceiver, Secret, Spec};

/// A Receiver as it comes; its spec stays untyped, so that one that cannot be read hides no other.
#[derive(Clone, Deserialize)]
pub(super) struct ReceiverObject {
    pub(super) metadata: Metadata,
    #[serde(default)]
    spec: Value,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Metadata {
    pub(super) name: String,
    pub(super) namespace: String,
    resource_version: String,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    webhook_path: Option<String>,
}

/// A Secret as it comes.
#[derive(Clone, Deserialize)]
pub(super) struct SecretObject {
    metadata: Metadata,
    #[serde(default)]
    data: BTreeMap<String, Zeroizing<String>>,
}

impl Watchable for ReceiverObject {
    fn resource_version(&self) -> &str {
        &self.metadata.resource_version
    }
}

impl Watchable for SecretObject {
    fn resource_version(&self) -> &str {
        &self.metadata.resource_version
    }
}

impl ReceiverObject {
    pub(super) fn name(&self) -> Name {
        (self.metadata.namespace.clone(), self.metadata.name.clone())
    }

    pub(super) fn read(self) -> Result<FluxReceiver, String> {
        let Metadata { name, namespace, .. } = self.metadata;
        let spec =
            serde_path_to_error::deserialize::<_, Spec>(self.spec).map_err(|err| format!("spec.{err}"))?;
        Ok(FluxReceiver { namespace, name, spec, webhook_path: self.status.webhook_path })
    }

    /// The Receiver; none, and the reason in the log, if it cannot be read.
    pub(super) fn read_or_log(self) -> Option<FluxReceiver> {
        let name = format!("Receiver/{}/{}", self.metadata.namespace, self.metadata.name);
        self.read().map_err(|why| log::error!(receiver:% = name, why:%; "the Receiver is not served")).ok()
    }
}

impl SecretObject {
    pub(super) fn read(&self) -> Secret {
        Secret::of_data(|key| Some(self.data.get(key)?.as_str()))
    }
}

pub(super) fn receivers() -> ApiResource {
    let kind = GroupVersionKind::gvk("notification.toolkit.fluxcd.io", "v1", "Receiver");
    ApiResource::from_gvk_with_plural(&kind, "receivers")
}

pub(super) fn secrets() -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", "Secret"), "secrets")
}
