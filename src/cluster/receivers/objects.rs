//! Receivers and Secrets as the API server gives them.

use std::collections::BTreeMap;

use kube::core::{ApiResource, GroupVersionKind};
use serde::Deserialize;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::super::watch::Watchable;
use super::NamespacedName;
use crate::field_error::FieldError;
use crate::flux_receiver::{FluxReceiver, ReceiverSpec, Secret};

/// A Receiver as it comes; its spec stays untyped, so that one that cannot be read hides no other.
#[derive(Clone, Deserialize)]
pub(super) struct ReceiverObject {
    pub(super) metadata: ReceiverMetadata,
    spec: Option<Box<RawValue>>,
    #[serde(default)]
    status: ReceiverStatus,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ReceiverMetadata {
    pub(super) name: String,
    pub(super) namespace: String,
    resource_version: String,
    creation_timestamp: String,
    uid: String,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ReceiverStatus {
    webhook_path: Option<String>,
}

/// Bytes of a Receiver's spec; one that lists a hundred objects has 10 KiB.
const MAX_SPEC_BYTES: usize = 64 << 10;

/// Bytes of a path in a status; a digest in hex has 64.
const MAX_PATH_BYTES: usize = 128;

/// A Secret as it comes.
#[derive(Clone, Deserialize)]
pub(super) struct SecretObject {
    metadata: ReceiverMetadata,
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
    pub(super) fn name(&self) -> NamespacedName {
        (self.metadata.namespace.clone(), self.metadata.name.clone())
    }

    pub(super) fn read(self) -> Result<FluxReceiver, FieldError> {
        let ReceiverMetadata { name, namespace, creation_timestamp: created, uid, .. } = self.metadata;
        let spec = self.spec.as_deref().map_or("null", RawValue::get);
        if spec.len() > MAX_SPEC_BYTES {
            return Err(FieldError::new("spec", format!("is longer than {MAX_SPEC_BYTES} bytes")));
        }
        let deserializer = &mut serde_json::Deserializer::from_str(spec);
        let spec = serde_path_to_error::deserialize::<_, ReceiverSpec>(deserializer)
            .map_err(|err| FieldError::from_serde("spec", err))?;
        let webhook_path = self.status.webhook_path.filter(|path| path.len() <= MAX_PATH_BYTES);
        Ok(FluxReceiver { namespace, name, created, uid, spec, webhook_path })
    }

    /// The Receiver; none, and the reason in the log, if it cannot be read.
    pub(super) fn read_or_log(self) -> Option<FluxReceiver> {
        let name = format!("Receiver/{}/{}", self.metadata.namespace, self.metadata.name);
        self.read().map_err(|why| log::error!(receiver:% = name, why:%; "Receiver is not served")).ok()
    }
}

impl SecretObject {
    pub(super) fn read(&self) -> Secret {
        Secret::from_data(|key| Some(self.data.get(key)?.as_str()))
    }
}

pub(super) fn receivers() -> ApiResource {
    let kind = GroupVersionKind::gvk("notification.toolkit.fluxcd.io", "v1", "Receiver");
    ApiResource::from_gvk_with_plural(&kind, "receivers")
}

pub(super) fn secrets() -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", "Secret"), "secrets")
}
