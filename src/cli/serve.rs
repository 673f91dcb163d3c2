//! `flux-recv` without a command: serves the endpoints of a config until it receives SIGTERM or SIGINT.

mod announce;
mod application;
mod backend;
mod background;
mod change;
mod file_limit;
mod fleet;
mod receivers;
mod reloading;
mod shutdown;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use self::application::Application;
pub use self::application::offline_service;
pub(super) use self::application::verify_context;
use super::{
    ClusterArgs, ConfigArgs, OptionalDuration, ReceiverArgs, parse_duration, parse_duration_or_never, runtime,
};

#[derive(Debug, Clone, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The address to listen on for webhooks: `:port` or `host:port`; `none` takes none, for a subscriber.
    #[arg(long, value_name = "ADDRESS", default_value = ":8080", env = "FLUX_RECV_LISTEN")]
    listen: String,
    /// The address for probes and metrics; not to be reached from outside.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8081", env = "FLUX_RECV_ADMIN_LISTEN")]
    admin_listen: String,
    /// The address of the page for operators and of what it shows as JSON, for `kubectl port-forward`; `none`
    /// switches it off.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8082", env = "FLUX_RECV_DEBUG_LISTEN")]
    debug_listen: String,
    /// Let the page request a delivery's objects again.
    #[arg(long, env = "FLUX_RECV_ALLOW_REQUEST_AGAIN")]
    allow_request_again: bool,
    /// The address for subscribers in other clusters, where the config has `publish`.
    #[arg(long, value_name = "ADDRESS", default_value = ":8090", env = "FLUX_RECV_SUBSCRIBE_LISTEN")]
    subscribe_listen: String,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Request nothing in a cluster of its own: a publisher that only publishes.
    #[arg(long, env = "FLUX_RECV_NO_CLUSTER", conflicts_with_all = ["kubeconfig", "context", "manifests", "receivers"])]
    no_cluster: bool,
    /// Serve against the Flux objects in a folder of YAML files instead of a cluster, and patch nothing.
    #[arg(long, value_name = "DIR", env = "FLUX_RECV_MANIFESTS", conflicts_with_all = ["kubeconfig", "context"])]
    manifests: Option<PathBuf>,
    /// Outside of an endpoint's own namespaces, request only objects that name it in their annotation
    /// `flux-recv.fluxcd.io/allow`.
    #[arg(long, env = "FLUX_RECV_REQUIRE_OPT_IN")]
    require_opt_in: bool,
    #[command(flatten)]
    receivers: ReceiverArgs,
    /// The folder of the journal, which holds pending reconcile requests; `none` keeps them in memory only
    /// [default: the user's state folder, else /var/lib/flux-recv].
    #[arg(long, value_name = "DIR", env = "FLUX_RECV_JOURNAL")]
    journal: Option<PathBuf>,
    /// Write Kubernetes Events about the objects: who pushed what, what was skipped, what Flux does not show.
    #[arg(long, env = "FLUX_RECV_EVENTS")]
    events: bool,
    /// Tell notification-controller, by the URL of its Service, of what needs someone.
    #[arg(long, value_name = "URL", env = "FLUX_RECV_FLUX_EVENTS")]
    flux_events: Option<url::Url>,
    /// What notification-controller is told: what needs someone, or every request as well.
    #[arg(long, value_enum, default_value_t = FluxEventSeverityArg::Error, env = "FLUX_RECV_FLUX_EVENTS_SEVERITY")]
    flux_events_severity: FluxEventSeverityArg,
    /// Request every object once after a start that finds no journal.
    #[arg(long, env = "FLUX_RECV_CATCH_UP")]
    catch_up: bool,
    /// Request every object once when flux-recv was away for longer than this before its start: providers do
    /// not send again what was refused; `never` switches it off.
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = parse_duration_or_never, env = "FLUX_RECV_CATCH_UP_AFTER")]
    catch_up_after: OptionalDuration,
    /// The minimum time between two reconcile requests for one object.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration, env = "FLUX_RECV_MIN_INTERVAL")]
    min_interval: Duration,
    /// The maximum time over which the requests of a delivery for many objects are spread; 0 sends them at
    /// once.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration, env = "FLUX_RECV_SPREAD")]
    spread: Duration,
    /// The time after SIGTERM in which deliveries are still accepted, so that load balancers notice; a second
    /// signal ends it.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration, env = "FLUX_RECV_SHUTDOWN_DELAY")]
    shutdown_delay: Duration,
    /// The time after that in which pending reconcile requests are sent.
    #[arg(long, value_name = "TIME", default_value = "8s", value_parser = parse_duration, env = "FLUX_RECV_DRAIN")]
    drain: Duration,
}

/// The values of `--flux-events-severity`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum FluxEventSeverityArg {
    Error,
    Info,
}

pub(super) fn run(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    runtime()?.block_on(async { Application::build(args).await?.run().await })
}
