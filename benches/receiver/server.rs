//! The processes that are measured.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::process::free_port;

pub const KEY: &str = "bench-key-0123456789-0123456789";

/// What is measured, if nothing else is said.
const ONE_ENDPOINT: &str = "fluxRecvVersion: 1\nendpoints: [{source: GitHub, keyPath: github.key}]\n";

/// The core of what is measured, and the core of everything else.
pub const SERVER_CORE: &str = "0";
pub const OTHER_CORE: &str = "1";

pub fn url(repository: usize) -> String {
    format!("https://github.com/example-org/repository-{repository}")
}

/// A process on a core of its own, with its port.
pub struct Server {
    child: Child,
    pub port: u16,
    _folder: tempfile::TempDir,
    /// Away from the config, whose folder is watched.
    log: tempfile::NamedTempFile,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pinned(core: &str, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", core]).arg(program).stdin(Stdio::null());
    command
}

/// The build that is measured.
pub fn measured() -> PathBuf {
    std::env::var_os("FLUX_RECV_BENCH_BINARY")
        .unwrap_or_else(|| env!("CARGO_BIN_EXE_flux-recv").into())
        .into()
}

fn own_program() -> PathBuf {
    std::env::current_exe().expect("the bench's own path")
}

impl Server {
    fn spawn(mut command: Command, port: u16, folder: tempfile::TempDir) -> Server {
        let log = log_file();
        let written = log.reopen().expect("a log");
        let child = command.stdout(Stdio::null()).stderr(written).spawn().expect("taskset runs");
        Server { child, port, _folder: folder, log }
    }

    pub fn baseline() -> Server {
        let port = free_port();
        let mut command = pinned(SERVER_CORE, &own_program());
        command.args(["serve-baseline", &port.to_string()]);
        Server::spawn(command, port, folder()).when_it_listens()
    }

    pub fn api_double(objects: usize) -> Server {
        let port = free_port();
        let mut command = pinned(OTHER_CORE, &own_program());
        command.args(["serve-api", &port.to_string(), &objects.to_string()]);
        Server::spawn(command, port, folder()).when_it_listens()
    }

    /// The binary as the image runs it: log, metrics and journal on. `FLUX_RECV_BENCH_BINARY` names
    /// another build of it.
    pub fn flux_recv(api: &Server) -> Server {
        Server::flux_recv_with(&kubeconfig(api.port), &[])
    }

    pub fn flux_recv_with_config(api: &Server, config: &str) -> Server {
        Server::start(pinned(SERVER_CORE, &measured()), &kubeconfig(api.port), config, &[])
    }

    pub fn flux_recv_with(kubeconfig: &str, arguments: &[&str]) -> Server {
        Server::start(pinned(SERVER_CORE, &measured()), kubeconfig, ONE_ENDPOINT, arguments)
    }

    /// Any build of the binary, with its instructions counted; they are told at its end.
    pub fn counted(program: &Path, api: &Server, arguments: &[&str]) -> Server {
        let mut command = pinned(SERVER_CORE, Path::new("valgrind"));
        command.args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]).arg(program);
        Server::start(command, &kubeconfig(api.port), ONE_ENDPOINT, arguments)
    }

    fn start(mut command: Command, kubeconfig: &str, config: &str, arguments: &[&str]) -> Server {
        let folder = folder();
        std::fs::write(folder.path().join("kubeconfig"), kubeconfig).expect("a kubeconfig");
        std::fs::write(folder.path().join("fluxrecv.yaml"), config).expect("a config");
        command.env("FLUX_RECV_KUBECONFIG", folder.path().join("kubeconfig"));
        Server::start_in(command, folder, arguments)
    }

    /// Starts in a folder with a config.
    fn start_in(mut command: Command, folder: tempfile::TempDir, arguments: &[&str]) -> Server {
        let port = free_port();
        let file = |name: &str| folder.path().join(name);
        std::fs::write(file("github.key"), KEY).expect("a key");
        command.arg("--config").arg(file("fluxrecv.yaml"));
        command.arg("--journal").arg(file("journal")).args([
            "--admin-listen",
            "127.0.0.1:0",
            "--log-format",
            "json",
        ]);
        if !arguments.contains(&"--listen") {
            command.args(["--listen", &format!("127.0.0.1:{port}")]);
        }
        command.args(arguments);
        command.env("FLUX_RECV_DEBUG_LISTEN", "none").env("FLUX_RECV_SHUTDOWN_DELAY", "0");
        // As in the image.
        command.env("MIMALLOC_PURGE_DELAY", "0").env("MIMALLOC_ARENA_EAGER_COMMIT", "0");
        Server::spawn(command, port, folder)
    }

    pub fn when_it_listens(self) -> Server {
        self.wait(|server| std::net::TcpStream::connect(("127.0.0.1", server.port)).is_ok())
    }

    pub fn when_it_knows_all_objects(self) -> Server {
        self.wait(|server| {
            let log = server.log();
            // The second text is that of binaries before 0.1.
            log.contains("inventory complete;") || log.contains("all objects are known")
        })
    }

    fn wait(mut self, ready: impl Fn(&Server) -> bool) -> Server {
        let started = Instant::now();
        while !ready(&self) {
            let ended = self.child.try_wait().expect("a status");
            assert!(ended.is_none() && started.elapsed() < Duration::from_secs(120), "{}", self.log());
            std::thread::sleep(Duration::from_millis(1));
        }
        self
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap_or_default()
    }

    /// The hook path of the first endpoint.
    pub fn path(&self) -> String {
        self.path_of(0)
    }

    /// The hook path of the endpoint at this place of the config.
    pub fn path_of(&self, endpoint: usize) -> String {
        let log = self.log();
        let digest = log.split("/hook/").nth(endpoint + 1).expect("a path");
        format!("/hook/{}", digest.chars().take_while(char::is_ascii_hexdigit).collect::<String>())
    }

    /// Ends a server whose instructions are counted, and tells how many there were.
    pub fn end_and_count(mut self) -> u64 {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()));
        self.child.wait().expect("a status");
        let log = self.log();
        let line = log.lines().find(|line| line.contains("I refs:") || line.contains("I   refs:"));
        let count: String =
            line.unwrap_or_else(|| panic!("no count: {log}")).split("refs:").skip(1).collect();
        count.chars().filter(char::is_ascii_digit).collect::<String>().parse().expect("a count")
    }

    /// CPU time so far, of all threads.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("a status");
        let fields: Vec<&str> = stat.rsplit(") ").next().expect("fields").split(' ').collect();
        let ticks: u64 =
            [fields[11], fields[12]].iter().map(|field| field.parse::<u64>().expect("ticks")).sum();
        Duration::from_millis(ticks * 10)
    }

    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }
}

/// A publisher and the keys of its subscribers.
pub struct Fleet {
    pub publisher: Server,
    pub subscribe_port: u16,
    public_key: String,
}

impl Fleet {
    /// The key of a subscriber.
    pub fn key(number: usize) -> String {
        format!("bench-key-of-subscriber-{number:08}")
    }

    /// A publisher without a cluster, with so many subscribers in its config.
    pub fn start(subscribers: usize) -> Fleet {
        Fleet::start_with(subscribers, "")
    }

    /// With further fields of `publish`.
    pub fn start_with(subscribers: usize, publish: &str) -> Fleet {
        let folder = folder();
        let signing = folder.path().join("signing.pem");
        let made = Command::new(measured()).args(["keygen", "--ed25519"]).arg(&signing).output();
        let public_key = String::from_utf8_lossy(&made.expect("keygen runs").stdout).trim().to_owned();
        let mut config = format!(
            "fluxRecvVersion: 1\nendpoints: [{{source: GitHub, keyPath: github.key}}]\npublish:\n  signingKeyPaths: \
             [signing.pem]\n{publish}  subscribers:\n"
        );
        for number in 0..subscribers {
            std::fs::write(folder.path().join(format!("{number}.key")), Fleet::key(number)).expect("a key");
            config.push_str(&format!("  - {{name: s{number}, endpoints: ['*'], keyPath: {number}.key}}\n"));
        }
        std::fs::write(folder.path().join("fluxrecv.yaml"), config).expect("a config");
        let subscribe_port = free_port();
        let listen = format!("127.0.0.1:{subscribe_port}");
        let command = pinned(SERVER_CORE, &measured());
        let publisher = Server::start_in(command, folder, &["--no-cluster", "--subscribe-listen", &listen]);
        let publisher = publisher.wait(|server| server.log().contains("listening for subscribers"));
        let follows = |server: &Server| server.log().contains("following the event log");
        let publisher = if publish.contains("nats:") { publisher.wait(follows) } else { publisher };
        Fleet { publisher: publisher.when_it_listens(), subscribe_port, public_key }
    }

    /// A subscriber that patches this API server.
    pub fn subscriber(&self, api: &Server, number: usize) -> Server {
        let folder = folder();
        std::fs::write(folder.path().join("token"), Fleet::key(number)).expect("a key");
        let config = format!(
            "fluxRecvVersion: 1\nsubscribe:\n- {{name: hub, url: 'http://127.0.0.1:{}', tokenPath: token, publicKeys: ['{}'], endpoints: \
             {{github: }}}}\n",
            self.subscribe_port, self.public_key
        );
        std::fs::write(folder.path().join("fluxrecv.yaml"), config).expect("a config");
        std::fs::write(folder.path().join("kubeconfig"), kubeconfig(api.port)).expect("a kubeconfig");
        let mut command = pinned(OTHER_CORE, &measured());
        command.env("FLUX_RECV_KUBECONFIG", folder.path().join("kubeconfig"));
        Server::start_in(command, folder, &["--listen", "none"])
    }
}

/// In memory where there is such a folder: in a container the log goes to a pipe, not to a disk.
fn log_file() -> tempfile::NamedTempFile {
    tempfile::NamedTempFile::new_in("/dev/shm").or_else(|_| tempfile::NamedTempFile::new()).expect("a log")
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

pub fn kubeconfig(port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: t\nclusters: [{{name: t, cluster: {{server: \"http://127.0.0.1:{port}\"}}}}]\n\
         users: [{{name: t, user: {{token: test-token}}}}]\ncontexts: [{{name: t, context: {{cluster: t, user: t}}}}]\n"
    )
}
