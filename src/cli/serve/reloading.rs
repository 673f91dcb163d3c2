//! Takes changes of the config in force, also on SIGHUP.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use url::Url;

use super::application::serving;
use super::change;
use super::fleet::{Fleet, FleetOptions};
use crate::cluster::watches::Watches;
use crate::config::Config;
use crate::reload::ConfigWatcher;
use crate::service::Service;

/// Reloads a config, but for what cannot change while serving.
pub(super) struct ReloadTask {
    file: PathBuf,
    changes: ConfigWatcher,
    api: Option<Url>,
    sighup: Signal,
    /// What has to know of kinds that are named anew.
    pub(super) watches: Option<Arc<Watches>>,
}

impl ReloadTask {
    /// Prepares reloading for a config that was just loaded. From here on SIGHUP does not end the process.
    ///
    /// # Errors
    /// When the signal cannot be listened for.
    pub(super) fn new(file: &Path, changes: ConfigWatcher, config: &Config) -> std::io::Result<ReloadTask> {
        let sighup = signal(SignalKind::hangup())?;
        Ok(ReloadTask { file: file.to_owned(), changes, api: config.api.clone(), sighup, watches: None })
    }

    /// Reloads whenever something has changed; never ends.
    pub(super) async fn run(mut self, service: Arc<Service>, fleet: Arc<Fleet>) {
        let hangup = Arc::new(Notify::new());
        tokio::spawn(on_sighup(self.sighup, Arc::clone(&hangup)));
        loop {
            let loaded = match self.changes.next(&hangup).await {
                Ok(config) if config.api == self.api => {
                    let unchangeable = |why| format!("{}: {why}", self.file.display());
                    fleet.check(&config).map_err(unchangeable).map(|()| config)
                }
                Ok(_) => Err(format!(
                    "{}: api: cannot change while serving; restart flux-recv",
                    self.file.display()
                )),
                Err(mistakes) => Err(mistakes.to_string()),
            };
            service.metrics.reloaded(loaded.is_ok());
            match loaded {
                Ok(config) => put_in_force(config, &service, self.watches.as_deref(), &fleet),
                Err(mistakes) => {
                    service.config_state.reload_failed(mistakes.lines().next().unwrap_or_default());
                    mistakes.lines().for_each(|mistake| log::error!(mistake:%; "config mistake"));
                    log::error!("config reload failed; keeping the previous config");
                }
            }
        }
    }
}

async fn on_sighup(mut sighup: Signal, hangup: Arc<Notify>) {
    while sighup.recv().await.is_some() {
        hangup.notify_one();
    }
}

fn put_in_force(mut config: Config, service: &Service, watches: Option<&Watches>, fleet: &Fleet) {
    for warning in &config.warnings {
        log::warn!(warning:%; "config warning");
    }
    service.config_state.in_force(config.warnings.clone());
    let endpoints = config.endpoints.iter().count();
    let needs = config.needs();
    let options =
        FleetOptions { publish: config.publish.take(), subscribe: std::mem::take(&mut config.subscribe) };
    change::put_in_force(service, watches, needs, |registry| {
        registry.replace(serving(config, &service.metrics))
    });
    fleet.replace(options);
    log::info!(endpoints; "config reloaded");
}
