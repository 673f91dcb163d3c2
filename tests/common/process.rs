//! Child processes that end with the test.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::log::{self, LogLine};

/// A process that is killed when it goes out of scope. Its output goes to a file.
pub struct Process {
    child: Child,
    log: std::path::PathBuf,
}

impl Process {
    pub fn spawn(command: &mut Command, log: &Path) -> Process {
        let file = std::fs::File::create(log).expect("a log file");
        let copy = file.try_clone().expect("a log file");
        let child = command.stdin(Stdio::null()).stdout(file).stderr(copy).spawn();
        let child = child.unwrap_or_else(|err| panic!("cannot start {:?}: {err}", command.get_program()));
        Process { child, log: log.to_owned() }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn log_lines(&self) -> Vec<LogLine> {
        log::parse(&self.output())
    }

    /// Whether the log has a line with this message and these fields; see [`LogLine::is`].
    pub fn has_logged(&self, message: &str, fields: &[(&str, &str)]) -> bool {
        self.log_lines().iter().any(|line| line.is(message, fields))
    }

    /// The memory that the process holds.
    pub fn resident_kib(&mut self) -> u64 {
        self.assert_runs();
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Sends SIGTERM and waits for the end; gives the exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let status = Command::new("kill").arg(self.child.id().to_string()).status().expect("kill runs");
        assert!(status.success());
        self.wait()
    }

    /// Waits for the end; gives the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        self.child.wait().expect("an exit status").code()
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Fails loudly, with the output, if the process has ended.
    pub fn assert_runs(&mut self) {
        if let Some(status) = self.child.try_wait().expect("a status") {
            panic!("the process ended with {status}:\n{}", self.output());
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks again until there is an answer; `what` is for the failure.
pub fn wait_for<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        assert!(started.elapsed() < limit, "waited {limit:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(25));
    }
}

/// A port that nobody listens on, below those that the kernel gives to outgoing connections: one of these
/// can be in use again before a process listens on it.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(97);
    let ports = std::iter::repeat_with(|| NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(first));
    let mut ports = ports.map(|number| 11_000 + (number % 20_000) as u16);
    ports.find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a port")
}
