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
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use crate::config::{self, Config, Rules};

/// Notices that the files of a config have changed.
pub struct ConfigWatcher {
    file: PathBuf,
    rules: Rules,
    /// What the files held when they were read last.
    seen: [u8; 32],
    touched: Arc<Notify>,
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
}

/// A change of several files comes as several events.
const SETTLE_DELAY: Duration = Duration::from_millis(300);

/// How often the content is looked at without an event.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);

impl ConfigWatcher {
    /// Watches the files of a config that is about to be loaded.
    pub fn new(file: &Path, rules: Rules) -> ConfigWatcher {
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
        let mut changes = ConfigWatcher {
            file: file.to_owned(),
            rules,
            seen: [0; 32],
            touched,
            watcher,
            watched: BTreeSet::new(),
        };
        changes.seen = changes.content();
        changes.watch_folders();
        changes
    }

    /// Waits until the content has changed, or `now` asks for a look all the same; loads it.
    ///
    /// # Errors
    /// All mistakes of the new content; it is not tried again before it changes.
    pub async fn next(&mut self, now: &Notify) -> Result<Config, config::Mistakes> {
        loop {
            let asked = tokio::select! {
                () = now.notified() => true,
                () = self.touched.notified() => {
                    tokio::time::sleep(SETTLE_DELAY).await;
                    false
                }
                () = tokio::time::sleep(CHECK_INTERVAL) => false,
            };
            let content = self.content();
            if content == self.seen && !asked {
                continue;
            }
            let loaded = config::load(&self.file, self.rules);
            self.watch_folders();
            self.seen = self.content();
            // What changed while it was being read may be half of the one and half of the other.
            if self.seen != content {
                self.seen = [0; 32];
                self.touched.notify_one();
                continue;
            }
            return loaded;
        }
    }

    fn content(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        for file in config::files(&self.file) {
            match std::fs::read(file) {
                Ok(bytes) => {
                    hasher.update((bytes.len() as u64).to_le_bytes());
                    hasher.update(&bytes);
                }
                Err(_) => hasher.update(b"unreadable"),
            }
        }
        hasher.finalize().into()
    }

    fn watch_folders(&mut self) {
        let Some(watcher) = &mut self.watcher else { return };
        for file in config::files(&self.file) {
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
