//! The limit of open files, which connections count against.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Beside the connections of clients: watches, patches in flight, the journal, files being read.
const FILES_BESIDE_CONNECTIONS: u64 = 320;

/// Sees to it that so many connections fit into the limit of open files, which is raised as far as it
/// may be. Gives the number of connections that do fit.
pub(super) fn fit(max_connections: usize) -> usize {
    let wanted = max_connections as u64 + FILES_BESIDE_CONNECTIONS;
    let limit = getrlimit(Resource::Nofile);
    let Some(current) = limit.current.filter(|current| *current < wanted) else { return max_connections };
    let raised = limit.maximum.map_or(wanted, |maximum| wanted.min(maximum));
    let raised_limit = Rlimit { current: Some(raised), maximum: limit.maximum };
    let available = setrlimit(Resource::Nofile, raised_limit).map_or(current, |()| raised);
    let fitting = connections_within(available, max_connections);
    if fitting < max_connections {
        log::warn!(
            limit = available, wanted, connections = fitting;
            "the limit of open files is low, accepting fewer connections; raise it with ulimit -n"
        );
    }
    fitting
}

/// A limit that leaves nothing for connections is the operator's to see: some are accepted all the same.
fn connections_within(files: u64, max_connections: usize) -> usize {
    let fitting = files.saturating_sub(FILES_BESIDE_CONNECTIONS).max(files / 4).max(1);
    usize::try_from(fitting).unwrap_or(max_connections).min(max_connections)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_everything_else() {
        for (files, connections) in [(20_000, 1024), (1344, 1024), (1024, 704), (256, 64), (0, 1)] {
            assert_eq!(connections_within(files, 1024), connections, "{files}");
        }
    }
}
