//! The Kubernetes API. Only this module knows its client.

pub mod access;
pub mod annotate;
pub mod connection;
pub mod event_recorder;
mod gap;
mod kind_state;
mod kind_states;
pub mod list_scanner;
pub mod receivers;
mod resources;
mod watch;
mod watch_driver;
pub mod watches;

/// An API error in a line: what the API server says, or why it was not reached.
fn describe(err: &kube::Error) -> String {
    match err {
        kube::Error::Api(status) => format!("{} {}: {}", status.code, status.reason, status.message),
        other => {
            let mut line = other.to_string();
            let mut cause = std::error::Error::source(other);
            while let Some(err) = cause {
                let text = err.to_string();
                if !line.contains(&text) {
                    line = format!("{line}: {text}");
                }
                cause = err.source();
            }
            line
        }
    }
}

/// The status code of an API error, if the API server has answered.
fn status_code(err: &kube::Error) -> Option<u16> {
    match err {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}
