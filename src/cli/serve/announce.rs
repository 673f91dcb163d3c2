//! The startup lines.

use super::ServeArgs;
use crate::config::Config;
use crate::endpoint::{Endpoint, EndpointOrigin};
use crate::journal::Journal;

/// Logs a line for each endpoint, then what the operator should know.
pub(super) fn announce(config: &Config, args: &ServeArgs, journal: &Journal) {
    config.endpoints.iter().for_each(|endpoint| announce_endpoint(endpoint));
    for note in &config.notes {
        log::info!(note:%; "config note");
    }
    for warning in &config.warnings {
        log::warn!(warning:%; "config warning");
    }
    if args.receivers.namespaces().is_some() && (config.api.is_some() || args.manifests.is_some()) {
        log::warn!("--receivers has no effect with `api:` or --manifests; Receivers are in a cluster");
    }
    if args.no_cluster {
        log::info!("publishing only; no object is requested here");
        return;
    }
    match (&config.api, &args.manifests) {
        (Some(api), _) => log::info!(api:% = without_password(api); "forwarding events to Flux v1"),
        (None, Some(folder)) => {
            log::info!(folder:% = folder.display(); "matching against manifests; no object is patched");
        }
        (None, None) => {
            log::info!(
                "requesting reconciliation through the Kubernetes API; set `api:` to forward events to Flux v1"
            );
            if !journal.is_persistent() {
                log::warn!("no journal: pending reconcile requests are lost when the process ends");
            }
        }
    }
}

/// Logs an endpoint at startup and after a reload: the only lines that hold hook paths.
pub(super) fn announce_endpoint(endpoint: &Endpoint) {
    let Endpoint { name, provider, key_file, .. } = endpoint;
    match endpoint.origin {
        EndpointOrigin::Config => {
            log::info!(endpoint:% = name, source = provider.name, key:% = key_file.display(), path:% = endpoint.path(); "serving endpoint");
            if let Some(alias) = &endpoint.alias {
                log::info!(endpoint:% = name, path:% = alias; "serving endpoint at its alias as well");
            }
        }
        // Its status has the path; the log of one tenant's Receiver is read by all.
        EndpointOrigin::Receiver { .. } => {
            log::info!(endpoint:% = name, source = provider.name, key:% = key_file.display(); "serving endpoint");
        }
    }
}

fn without_password(api: &url::Url) -> String {
    let mut shown = api.clone();
    let _ = shown.set_password(None);
    shown.to_string()
}
