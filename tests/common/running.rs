//! The binary, running.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use super::leaks;
use super::log::{self, LogLine};
use super::process::{Process, wait_for};

/// A flux-recv that serves from a folder of its own, and ends with the test.
pub struct FluxRecv {
    pub base: String,
    /// The listener for probes and metrics.
    pub admin: String,
    pub folder: tempfile::TempDir,
    pub process: Process,
    arguments: Vec<OsString>,
    environment: Vec<(String, String)>,
    starts: u32,
}

/// How long a start may take, on a machine that is busy.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// A provider that signs and one that cannot.
pub const CONFIG: &str = "fluxRecvVersion: 1
endpoints:
- {source: GitHub, keyPath: github.key}
- {source: DockerHub, keyPath: hub.key}
";

/// An object that follows one branch of one repository.
pub const OBJECTS: &str = "
apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: app, namespace: apps}
spec: {url: https://github.com/org/app, ref: {branch: main}}
";

/// Keys have this content, so that tests can sign.
pub fn test_key(name: &str) -> String {
    format!("test-key-number-one-for-{name}")
}

/// The binary that is tested: `FLUX_RECV_TEST_BINARY`, or the one that was built with the tests.
pub fn flux_recv() -> Command {
    let built = env!("CARGO_BIN_EXE_flux-recv");
    let binary = std::env::var_os("FLUX_RECV_TEST_BINARY").unwrap_or_else(|| built.into());
    let mut command = Command::new(binary);
    command.env("HOME", "/nonexistent").env_remove("XDG_STATE_HOME");
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy().to_lowercase();
        if text.starts_with("flux_recv_")
            || text.ends_with("_proxy")
            || text == "rust_log"
            || text == "kubeconfig"
        {
            command.env_remove(name);
        }
    }
    // Whoever tests the journal names a folder.
    command
        .env("FLUX_RECV_LOG_FORMAT", "json")
        .env("FLUX_RECV_JOURNAL", "none")
        .env("FLUX_RECV_ADMIN_LISTEN", "127.0.0.1:0");
    command.env("FLUX_RECV_DEBUG_LISTEN", "127.0.0.1:0").env("FLUX_RECV_SHUTDOWN_DELAY", "0");
    // What glibc keeps of freed memory is left out where memory is measured; the image's allocator is
    // told to give it back as well.
    command.env("MALLOC_MMAP_THRESHOLD_", "131072").env("MALLOC_TRIM_THRESHOLD_", "131072");
    command.env("MALLOC_ARENA_MAX", "2");
    command
}

/// A folder with a config and a key for each `keyPath` in it.
pub fn folder(config: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    write_config(folder.path(), config);
    folder
}

/// Puts a config into a folder, and before it a key for each `keyPath` and `secretKeyPath` in it.
pub fn write_config(folder: &Path, config: &str) {
    for part in config.replace("secretKeyPath: ", "keyPath: ").split("keyPath: ").skip(1) {
        let key = part.split([',', '}', '\n', ' ']).next().expect("a key path");
        let name = key.trim_end_matches(".key");
        std::fs::write(folder.join(key), test_key(name)).expect("a key");
    }
    std::fs::write(folder.join("fluxrecv.yaml"), config).expect("a config");
}

impl FluxRecv {
    /// Serves this config against these Flux objects.
    pub fn with_objects(config: &str, objects: &str) -> FluxRecv {
        let folder = folder(config);
        let manifests = folder.path().join("objects");
        std::fs::create_dir(&manifests).expect("a folder");
        std::fs::write(manifests.join("objects.yaml"), objects).expect("objects");
        FluxRecv::in_folder(folder, &["--manifests", &manifests.display().to_string()])
    }

    pub fn in_folder(folder: tempfile::TempDir, arguments: &[&str]) -> FluxRecv {
        FluxRecv::with_environment(folder, arguments, &[])
    }

    /// Serves the config of a folder. An argument of the test comes after the ones of the suite, and so
    /// does a variable.
    pub fn with_environment(
        folder: tempfile::TempDir,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> FluxRecv {
        let path = |name: &str| folder.path().join(name).into_os_string();
        let mut all = vec!["--config".into(), path("fluxrecv.yaml")];
        all.extend(arguments.iter().map(OsString::from));
        let journal = path("journal").into_string().expect("a name that is UTF-8");
        let own = [("FLUX_RECV_JOURNAL", &*journal), ("FLUX_RECV_LISTEN", "127.0.0.1:0")];
        let environment = own.iter().chain(environment);
        let environment: Vec<(String, String)> =
            environment.map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let process = spawn(&all, &environment, &folder.path().join("log-1"));
        let (base, admin) = (String::new(), String::new());
        let mut running = FluxRecv { base, admin, process, folder, arguments: all, environment, starts: 1 };
        running.wait_until_it_listens();
        running
    }

    /// Starts again after it was ended, in the same folder.
    pub fn start_again(&mut self) {
        self.starts += 1;
        let log = self.folder.path().join(format!("log-{}", self.starts));
        self.process = spawn(&self.arguments, &self.environment, &log);
        self.wait_until_it_listens();
    }

    fn wait_until_it_listens(&mut self) {
        let listens = self.environment.iter().rfind(|(name, _)| name == "FLUX_RECV_LISTEN");
        let is_none = self.arguments.windows(2).any(|pair| pair[0] == "--listen" && pair[1] == "none");
        let message = match listens {
            _ if is_none => "serving probes and metrics",
            Some((_, address)) if address == "none" => "serving probes and metrics",
            _ => "listening",
        };
        let base = wait_for("flux-recv to listen", START_TIMEOUT, || {
            self.process.assert_runs();
            self.base_of(message)
        });
        self.base = base;
        self.admin = self.base_of("serving probes and metrics").expect("the admin listener comes first");
    }

    /// The URL of the listener that this message is about.
    pub fn base_of(&self, message: &str) -> Option<String> {
        let line = self.log_lines().into_iter().find(|line| line.message() == message)?;
        Some(format!("http://{}", line.field("address")))
    }

    /// What the listener for operators that has the path answers.
    pub async fn get_admin(&self, path: &str) -> (u16, String) {
        let has_details = path == "/config" || path == "/deliveries";
        let base = if has_details { self.debug() } else { self.admin.clone() };
        let response = client().get(format!("{base}{path}")).send().await.expect("an answer");
        (response.status().as_u16(), response.text().await.expect("a body"))
    }

    /// Where the pages with details are.
    pub fn debug(&self) -> String {
        self.base_of("serving config and deliveries").unwrap_or_else(|| self.admin.clone())
    }

    /// The value of a metric, by its name with labels.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let (_, text) = self.get_admin("/metrics").await;
        let line =
            text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(name).arg(self.pid().to_string()).status();
        assert!(status.expect("kill runs").success());
    }

    pub fn log(&self) -> String {
        self.process.output()
    }

    /// The path of an endpoint, as the startup line tells it.
    pub fn path(&self, endpoint: &str) -> String {
        let lines = self.log_lines();
        let line = lines.iter().rfind(|line| line.is("serving endpoint", &[("endpoint", endpoint)]));
        line.expect("a startup line").field("path")
    }

    /// Ends it as `kill -9` does, and gives its folder to the next one.
    pub fn into_folder(mut self) -> tempfile::TempDir {
        self.process.kill();
        std::mem::replace(&mut self.folder, tempfile::tempdir().expect("a folder"))
    }

    /// Runs a command with this instance's config.
    pub fn command(&self, arguments: &[&str]) -> Output {
        let (command, rest) = arguments.split_first().expect("a command");
        let config = self.folder.path().join("fluxrecv.yaml");
        flux_recv().arg(command).arg("--config").arg(config).args(rest).output().expect("flux-recv runs")
    }

    pub fn log_lines(&self) -> Vec<LogLine> {
        log::parse(&self.log())
    }

    /// Counts the lines with this message and these fields; see [`LogLine::is`].
    pub fn logged(&self, message: &str, fields: &[(&str, &str)]) -> usize {
        self.log_lines().iter().filter(|line| line.is(message, fields)).count()
    }

    /// Waits for a line of the log.
    pub fn wait_for_log(&self, message: &str, fields: &[(&str, &str)]) {
        let started = Instant::now();
        while self.logged(message, fields) == 0 {
            let is_late = started.elapsed() > Duration::from_secs(20);
            assert!(!is_late, "no {message:?} {fields:?} in: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the log has so many of these lines, and lets others work meanwhile.
    pub async fn wait_for_logs(&self, message: &str, fields: &[(&str, &str)], times: usize, limit: Duration) {
        let started = Instant::now();
        while self.logged(message, fields) < times {
            let is_late = started.elapsed() > limit;
            assert!(!is_late, "not {times} times {message:?} {fields:?} in: {}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends SIGTERM; gives the exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        self.process.terminate()
    }
}

fn spawn(arguments: &[OsString], environment: &[(String, String)], log: &Path) -> Process {
    let mut command = flux_recv();
    command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value)));
    Process::spawn(&mut command, log)
}

impl Drop for FluxRecv {
    fn drop(&mut self) {
        self.process.kill();
        // Incidents 38 and 40: everything that any process of the suite has written.
        let logs = std::fs::read_dir(self.folder.path()).into_iter().flatten().flatten();
        let logs = logs.filter(|entry| entry.file_name().to_string_lossy().starts_with("log-"));
        let output: String =
            logs.map(|entry| std::fs::read_to_string(entry.path()).unwrap_or_default()).collect();
        let leak = leaks::find(&output, self.folder.path());
        assert!(leak.is_none() || std::thread::panicking(), "a leak: {}", leak.unwrap_or_default());
    }
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// `sha256=…` over a body, under the key of an endpoint.
pub fn hub_signature(key: &str, body: &[u8]) -> String {
    use hmac::{Hmac, KeyInit, Mac};
    let mut mac = <Hmac<sha2::Sha256> as KeyInit>::new_from_slice(key.as_bytes()).expect("a key");
    mac.update(body);
    let signature = hex::encode(mac.finalize().into_bytes());
    leaks::remember(&signature);
    format!("sha256={signature}")
}

/// A client; the TLS provider is the one of the binary.
pub fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}
