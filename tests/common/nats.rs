//! Real nats-servers: one, or three that hold copies of a stream.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::process::{Process, free_port, wait_for};

/// Servers with JetStream on loopback. They end with the test.
pub struct NatsServers {
    folder: tempfile::TempDir,
    binary: PathBuf,
    servers: Vec<Server>,
}

struct Server {
    process: Process,
    client_port: u16,
    monitor_port: u16,
    starts: u32,
}

const PATIENCE: Duration = Duration::from_secs(30);

/// Returns the nats-server that `tests/testbed/build` has built, if it has.
pub fn nats_server() -> Option<PathBuf> {
    let cache = std::env::var_os("FLUX_RECV_TESTBED").map(PathBuf::from).unwrap_or_else(|| {
        let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache");
        base.unwrap_or_else(home).join("flux-recv/testbed")
    });
    Some(cache.join("bin/nats-server")).filter(|binary| binary.exists())
}

impl NatsServers {
    /// Starts so many servers, each with these further lines of config, and waits until JetStream is ready.
    pub fn start(binary: PathBuf, count: usize, more: &str) -> NatsServers {
        let folder = tempfile::tempdir().expect("a folder");
        let routes: Vec<u16> = (0..count).map(|_| free_port()).collect();
        let urls: Vec<String> = routes.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
        let mut servers = Vec::new();
        for (at, route) in routes.iter().enumerate() {
            let (client_port, monitor_port) = (free_port(), free_port());
            let store = folder.path().join(format!("store-{at}"));
            let mut config = format!(
                "server_name: n{at}\nlisten: 127.0.0.1:{client_port}\nhttp: 127.0.0.1:{monitor_port}\n\
                 jetstream: {{store_dir: '{}', sync_interval: always}}\n{more}\n",
                store.display()
            );
            if count > 1 {
                let routes = urls.join(", ");
                config.push_str(&format!(
                    "cluster: {{name: test, listen: 127.0.0.1:{route}, routes: [{routes}]}}\n"
                ));
            }
            std::fs::write(folder.path().join(format!("n{at}.conf")), config).expect("a config");
            let process = spawn(&binary, &folder, at, 1);
            servers.push(Server { process, client_port, monitor_port, starts: 1 });
        }
        let servers = NatsServers { folder, binary, servers };
        servers.wait_until_ready();
        servers
    }

    /// Waits until JetStream takes streams with as many copies as there are servers.
    pub fn wait_until_ready(&self) {
        wait_for("JetStream", PATIENCE, || {
            let is_ready =
                |at: usize| self.monitor(at, "healthz").is_some_and(|answer| answer["status"] == "ok");
            let sees_all = |at: usize| {
                let cluster = self.monitor(at, "jsz")?["meta_cluster"]["cluster_size"].as_u64();
                (self.servers.len() == 1 || cluster? as usize == self.servers.len()).then_some(())
            };
            (0..self.servers.len()).all(|at| is_ready(at) && sees_all(at).is_some()).then_some(())
        });
    }

    pub fn urls(&self) -> String {
        self.urls_with("nats")
    }

    pub fn urls_with(&self, scheme: &str) -> String {
        let urls: Vec<String> = self
            .servers
            .iter()
            .map(|server| format!("{scheme}://127.0.0.1:{}", server.client_port))
            .collect();
        urls.join(", ")
    }

    pub fn log(&self, at: usize) -> String {
        self.servers[at].process.output()
    }

    /// A page of a server for monitoring; none if it does not answer.
    pub fn monitor(&self, at: usize, page: &str) -> Option<Value> {
        let url = format!("http://127.0.0.1:{}/{page}", self.servers[at].monitor_port);
        let output = Command::new("curl").args(["-s", "-m", "2", "--noproxy", "*", &url]).output().ok()?;
        serde_json::from_slice(&output.stdout).ok()
    }

    /// What a stream holds and how its copies are, as the server says that leads it.
    pub fn stream(&self, name: &str) -> Option<Value> {
        (0..self.servers.len()).find_map(|at| {
            let page = self.monitor(at, "jsz?streams=true&config=true")?;
            let accounts = page["account_details"].as_array()?.clone();
            let streams = accounts.iter().flat_map(|account| account["stream_detail"].as_array().cloned());
            let leads = |stream: &Value| {
                let leader = &stream["cluster"]["leader"];
                leader.is_null() || *leader == format!("n{at}").as_str()
            };
            streams.flatten().find(|stream| stream["name"] == name && leads(stream))
        })
    }

    /// The server that leads a stream.
    pub fn leader(&self, name: &str) -> usize {
        wait_for("a leader of the stream", PATIENCE, || {
            let leader = self.stream(name)?["cluster"]["leader"].as_str()?.to_owned();
            leader.strip_prefix('n')?.parse().ok()
        })
    }

    pub fn kill(&mut self, at: usize) {
        self.servers[at].process.kill();
    }

    pub fn start_again(&mut self, at: usize) {
        let server = &mut self.servers[at];
        server.starts += 1;
        server.process = spawn(&self.binary, &self.folder, at, server.starts);
    }

    /// Copies what a server that does not run has stored.
    pub fn copy_store(&self, at: usize) -> tempfile::TempDir {
        let copy = tempfile::tempdir().expect("a folder");
        copy_all(&self.folder.path().join(format!("store-{at}")), &copy.path().join("store"));
        copy
    }

    /// Puts a copy in the place of what a server that does not run has stored.
    pub fn put_store(&self, at: usize, copy: &tempfile::TempDir) {
        let store = self.folder.path().join(format!("store-{at}"));
        std::fs::remove_dir_all(&store).expect("a store");
        copy_all(&copy.path().join("store"), &store);
    }

    /// Changes the config of a server while it runs.
    pub fn reload(&self, at: usize, change: impl FnOnce(String) -> String) {
        let file = self.folder.path().join(format!("n{at}.conf"));
        let config = std::fs::read_to_string(&file).expect("a config");
        std::fs::write(&file, change(config)).expect("a config");
        self.signal(at, "-HUP");
    }

    /// Sends a signal by its name.
    pub fn signal(&self, at: usize, name: &str) {
        let id = self.servers[at].process.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().expect("kill runs").success());
    }
}

fn copy_all(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-r").args([from, to]).status().expect("cp runs").success());
}

fn spawn(binary: &PathBuf, folder: &tempfile::TempDir, at: usize, start: u32) -> Process {
    let path = |name: String| folder.path().join(name);
    let mut command = Command::new(binary);
    Process::spawn(command.arg("-c").arg(path(format!("n{at}.conf"))), &path(format!("n{at}-{start}.log")))
}
