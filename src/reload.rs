//! Takes a changed config and changed keys in force while serving: all of it or, if there is any
//! mistake, nothing.
//!
//! Kubernetes swaps the link `..data` in the folder of a mounted ConfigMap or Secret, so it is the
//! folders that are watched, not the files. Behind that, the content is looked at now and then, for
//! file systems that tell nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use crate::config::{self, Config, LoadedConfig, Mistakes, Rules};

/// Notices that the files of a config have changed, and loads it again.
pub struct ConfigWatcher {
    file: PathBuf,
    rules: Rules,
    /// The files that the config consists of, and what they held when they were read last.
    files: Vec<PathBuf>,
    seen: [u8; 32],
    touched: Arc<Notify>,
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
}

/// A change of several files comes as several events.
const SETTLE_DELAY: Duration = Duration::from_millis(300);

/// The time between two looks at the content without an event.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);

impl ConfigWatcher {
    /// Loads a config, and watches its files from then on.
    ///
    /// # Errors
    /// All mistakes of the config.
    pub fn load(file: &Path, rules: Rules) -> Result<(ConfigWatcher, Config), Mistakes> {
        let touched = Arc::new(Notify::new());
        let tell = Arc::clone(&touched);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !event.kind.is_access()) {
                tell.notify_one();
            }
        });
        let watcher = watcher
            .map_err(|err| log::warn!(why:% = err, interval_s = CHECK_INTERVAL.as_secs(); "cannot watch for changes; polling the config"))
            .ok();
        let LoadedConfig { config, files, digest } = config::load(file, rules);
        let (file, watched) = (file.to_owned(), BTreeSet::new());
        let mut changes = ConfigWatcher { file, rules, files, seen: digest, touched, watcher, watched };
        changes.watch_folders();
        config.map(|config| (changes, config))
    }

    /// Waits until the content has changed, or `now` requests a reload all the same; loads it.
    ///
    /// # Errors
    /// All mistakes of the new content; it is not tried again before it changes.
    pub async fn next(&mut self, now: &Notify) -> Result<Config, Mistakes> {
        loop {
            let is_requested = tokio::select! {
                () = now.notified() => true,
                () = self.touched.notified() => {
                    tokio::time::sleep(SETTLE_DELAY).await;
                    false
                }
                () = tokio::time::sleep(CHECK_INTERVAL) => false,
            };
            if config::content_digest(&self.files) == self.seen && !is_requested {
                continue;
            }
            let loaded = config::load(&self.file, self.rules);
            (self.files, self.seen) = (loaded.files, loaded.digest);
            self.watch_folders();
            // What changed while it was being read may be half of the one and half of the other.
            if config::content_digest(&self.files) != self.seen {
                // Read again in any case: the next look may find what was dropped here.
                self.seen = <[u8; 32]>::default();
                self.touched.notify_one();
                continue;
            }
            return loaded.config;
        }
    }

    fn watch_folders(&mut self) {
        let Some(watcher) = &mut self.watcher else { return };
        for file in &self.files {
            let folder = match file.parent() {
                Some(folder) if folder != Path::new("") => folder.to_owned(),
                _ => PathBuf::from("."),
            };
            if self.watched.contains(&folder) {
                continue;
            }
            match watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => drop(self.watched.insert(folder)),
                Err(err) => {
                    log::warn!(folder:% = folder.display(), why:% = err, interval_s = CHECK_INTERVAL.as_secs(); "cannot watch the folder; polling it");
                }
            }
        }
    }
}
