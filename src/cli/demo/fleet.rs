//! `flux-recv demo --fleet`: a publisher and three subscribers, each a process of its own on free ports.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;

use crate::cli::send::{Tampering, made_up_commit, post};
use crate::cli::{keygen, runtime, say};
use crate::config::{self, Rules};
use crate::event::git_ref::GitRef;
use crate::event::repository_url::RepositoryUrl;
use crate::listener;
use crate::provider::Sample;

/// A flux-recv that runs until the demo ends.
struct Instance {
    name: &'static str,
    folder: PathBuf,
    arguments: Vec<String>,
    child: Option<Child>,
}

/// The publisher, and what is needed to post to it.
struct Publisher {
    instance: Instance,
    base: String,
}

const REQUESTED: &str = "reconciliation would be requested (dry run)";
const CAUGHT_UP: &str = "caught up: each object was requested once";

/// How long a step may take, on a machine that is busy.
const STEP_TIMEOUT: Duration = Duration::from_secs(20);

pub(super) fn run() -> anyhow::Result<ExitCode> {
    let folder = tempfile::Builder::new().prefix("flux-recv-demo-").tempdir()?;
    let folder = folder.path();
    let address = free_address()?;
    let mut publisher = Publisher::start(folder, &address)?;
    let public_key = publisher.public_key()?;
    say(&format!(
        "A publisher on {}, subscribers connect to http://{address}; nothing is patched.\n\n",
        publisher.base
    ))?;
    let mut clusters = Vec::new();
    for (name, objects) in [("east", &["shop"][..]), ("west", &["shop", "docs"]), ("lab", &["docs"])] {
        let mut cluster = Instance::subscriber(folder, name, objects, &address, &public_key)?;
        cluster.start()?;
        clusters.push(cluster);
    }
    for cluster in &clusters {
        cluster.wait_for(CAUGHT_UP, "", 1)?;
    }
    line(
        "three clusters connect",
        "east, west, lab: each requests its objects once, since nobody knows what came before",
    )?;

    publisher.push("shop")?;
    clusters[0].wait_for(REQUESTED, "GitRepository/apps/shop", 2)?;
    clusters[1].wait_for(REQUESTED, "GitRepository/apps/shop", 2)?;
    line("a push to shop", "east, west: GitRepository/apps/shop; lab tracks nothing of it")?;

    clusters[2].stop();
    for _ in 0..3 {
        publisher.push("docs")?;
    }
    clusters[1].wait_for(REQUESTED, "GitRepository/apps/docs", 2)?;
    line("three pushes to docs, lab is away", "west: GitRepository/apps/docs")?;

    clusters[2].start()?;
    clusters[2].wait_for(REQUESTED, "GitRepository/apps/docs", 1)?;
    anyhow::ensure!(clusters[2].logged(CAUGHT_UP, "") == 0, "lab caught up where it could continue");
    line("lab is back", "lab continues where it was: GitRepository/apps/docs")?;

    clusters[0].stop();
    std::fs::remove_dir_all(clusters[0].folder.join("journal"))?;
    clusters[0].start()?;
    clusters[0].wait_for(CAUGHT_UP, "", 1)?;
    line("east has lost its volume", "east starts anew and requests each object once")?;
    say("\nEvery event reached the clusters that it concerns, and no others.\n")?;
    drop(publisher);
    Ok(ExitCode::SUCCESS)
}

/// A row of the demo.
fn line(what: &str, requested: &str) -> anyhow::Result<()> {
    say(&format!("✓ {what:<36}{requested}\n"))
}

impl Publisher {
    fn start(folder: &Path, address: &str) -> anyhow::Result<Publisher> {
        let folder = folder.join("publisher");
        std::fs::create_dir(&folder)?;
        keygen::write_key(&folder.join("github.key"))?;
        keygen::write_signing_key(&folder.join("signing.pem"))?;
        let mut config = "fluxRecvVersion: 1\nendpoints:\n- {source: GitHub, keyPath: github.key}\n\
                          publish:\n  signingKeyPaths: [signing.pem]\n  subscribers:\n"
            .to_owned();
        for name in ["east", "west", "lab"] {
            keygen::write_key(&folder.join(format!("{name}.key")))?;
            config.push_str(&format!("  - {{name: {name}, endpoints: [github], keyPath: {name}.key}}\n"));
        }
        std::fs::write(folder.join("fluxrecv.yaml"), config)?;
        let listen = free_address()?;
        let arguments = ["--no-cluster", "--listen", &listen, "--subscribe-listen", address];
        let mut instance = Instance::new("publisher", folder, &arguments);
        instance.start()?;
        instance.wait_for("listening", "", 1)?;
        Ok(Publisher { instance, base: format!("http://{listen}") })
    }

    fn public_key(&self) -> anyhow::Result<String> {
        let config = self.config()?;
        let publish = config.publish.context("the demo's config publishes")?;
        let key = publish.signing_keys.first().context("the demo's config has a signing key")?;
        Ok(key.public_key().to_string())
    }

    fn config(&self) -> anyhow::Result<config::Config> {
        Ok(config::load(&self.instance.folder.join("fluxrecv.yaml"), Rules::default()).config?)
    }

    /// Posts a signed push to a repository, as GitHub would.
    fn push(&mut self, repository: &str) -> anyhow::Result<()> {
        let config = self.config()?;
        let endpoint = config.endpoints.named("github").context("the demo's config has it")?;
        let repository = RepositoryUrl::parse(&format!("https://github.com/example-org/{repository}"))?;
        let name = GitRef::branch("main");
        let delivery =
            (endpoint.provider.compose)(&Sample::Push { repository, name, commit: made_up_commit() })?;
        let url = format!("{}{}", self.base, endpoint.path());
        let (status, answer) = runtime()?.block_on(post(&url, endpoint, delivery, Tampering::None, false))?;
        anyhow::ensure!(status == 202, "the push was answered with {status} {answer}");
        Ok(())
    }
}

impl Instance {
    fn new(name: &'static str, folder: PathBuf, arguments: &[&str]) -> Instance {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Instance { name, folder, arguments, child: None }
    }

    /// A cluster with these objects.
    fn subscriber(
        folder: &Path,
        name: &'static str,
        objects: &[&str],
        address: &str,
        public_key: &str,
    ) -> anyhow::Result<Instance> {
        let key = folder.join("publisher").join(format!("{name}.key"));
        let folder = folder.join(name);
        let manifests = folder.join("objects");
        std::fs::create_dir_all(&manifests)?;
        for object in objects {
            let text = format!(
                "apiVersion: source.toolkit.fluxcd.io/v1\nkind: GitRepository\nmetadata: {{name: {object}, namespace: apps}}\n\
                 spec: {{url: https://github.com/example-org/{object}, ref: {{branch: main}}}}\n"
            );
            std::fs::write(manifests.join(format!("{object}.yaml")), text)?;
        }
        let config = format!(
            "fluxRecvVersion: 1\nsubscribe:\n- name: hub\n  url: http://{address}\n  tokenPath: {}\n  publicKeys: ['{public_key}']\n  \
             endpoints: {{github: {{}}}}\n",
            key.display()
        );
        std::fs::write(folder.join("fluxrecv.yaml"), config)?;
        let manifests = manifests.display().to_string();
        Ok(Instance::new(name, folder, &["--listen", "none", "--manifests", &manifests]))
    }

    fn start(&mut self) -> anyhow::Result<()> {
        let log = File::create(self.log_file())?;
        let mut command = Command::new(std::env::current_exe()?);
        for (name, _) in std::env::vars_os() {
            // Options of the demo's own shell are not meant for these processes.
            if name.to_string_lossy().starts_with("FLUX_RECV_") {
                command.env_remove(name);
            }
        }
        let child = command
            .arg("--config")
            .arg(self.folder.join("fluxrecv.yaml"))
            .args([
                "--admin-listen",
                "127.0.0.1:0",
                "--debug-listen",
                "none",
                "--log-format",
                "json",
                "--journal",
            ])
            .arg(self.folder.join("journal"))
            .args(&self.arguments)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.name))?;
        self.child = Some(child);
        Ok(())
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Counts the log lines with this message about this object.
    fn logged(&self, message: &str, object: &str) -> usize {
        let log = std::fs::read_to_string(self.log_file()).unwrap_or_default();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines
            .filter(|line| line["message"] == message && (object.is_empty() || line["object"] == object))
            .count()
    }

    /// Waits until the log has this message so many times.
    fn wait_for(&self, message: &str, object: &str, times: usize) -> anyhow::Result<()> {
        let started = Instant::now();
        while self.logged(message, object) < times {
            if started.elapsed() > STEP_TIMEOUT {
                let log = std::fs::read_to_string(self.log_file()).unwrap_or_default();
                let _ = std::io::stderr().write_all(log.as_bytes());
                anyhow::bail!("{} did not log `{message}`; its log is above", self.name);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An address on loopback that nobody listens on.
fn free_address() -> anyhow::Result<String> {
    let listener = listener::bind("127.0.0.1:0")?;
    Ok(listener::local_address(&listener)?.to_string())
}
