//! The connection to the API server: address, CA and credentials.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use http::HeaderValue;
use http::header::USER_AGENT;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use parking_lot::RwLock;

/// The cluster that the command line chooses.
#[derive(Debug, Clone, Default)]
pub struct ClusterOptions {
    /// A kubeconfig file; else the usual environment, else the Pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// A context of it.
    pub context: Option<String>,
    /// A user to act as, in place of the own one.
    pub impersonate: Option<String>,
}

/// A connection whose credentials can be read again.
#[derive(Clone)]
pub struct ApiConnection {
    shared: Arc<SharedConnection>,
}

struct SharedConnection {
    options: ClusterOptions,
    open: RwLock<OpenConnection>,
    /// The API server has refused a list as a stream, or was silent in one.
    lists_in_pages: AtomicBool,
}

struct OpenConnection {
    client: Client,
    /// Scheme, host and port.
    server: Arc<str>,
    /// The context of the kubeconfig, if one was read.
    context: Option<Arc<str>>,
    since: Instant,
}

/// The name of the client in the API server's audit log.
const CLIENT_NAME: &str = concat!("flux-recv/", env!("CARGO_PKG_VERSION"));

/// The API server has to take a connection within this time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A watch is ended by the server after 290 s at the latest; a connection that is silent for longer
/// is dead.
const READ_TIMEOUT: Duration = Duration::from_secs(320);

/// Many requests can find out at once that a token is stale; one of them reads it again.
const RELOAD_PAUSE: Duration = Duration::from_secs(1);

impl ApiConnection {
    /// Reads the credentials; sends nothing yet.
    ///
    /// # Errors
    /// When there are none.
    pub async fn open(options: ClusterOptions) -> anyhow::Result<ApiConnection> {
        let open = RwLock::new(connect(&options).await?);
        Ok(ApiConnection {
            shared: Arc::new(SharedConnection { options, open, lists_in_pages: AtomicBool::new(false) }),
        })
    }

    /// Whether lists may be requested as streams.
    pub(super) fn streams_lists(&self) -> bool {
        !self.shared.lists_in_pages.load(Ordering::Relaxed)
    }

    /// From now on lists are requested in pages.
    pub(super) fn list_in_pages(&self) {
        self.shared.lists_in_pages.store(true, Ordering::Relaxed);
    }

    /// Returns a client over the shared connection pool.
    pub fn client(&self) -> Client {
        self.shared.open.read().client.clone()
    }

    /// Returns the API server's scheme, host and port, for messages.
    pub fn server(&self) -> Arc<str> {
        Arc::clone(&self.shared.open.read().server)
    }

    /// Returns the context of the kubeconfig, if credentials come from one.
    pub fn context(&self) -> Option<Arc<str>> {
        self.shared.open.read().context.clone()
    }

    /// Reads address, CA and credentials again, as after a 401 or where no answer comes any more.
    pub async fn reload_credentials(&self) {
        let age = self.shared.open.read().since.elapsed();
        if age < RELOAD_PAUSE {
            return;
        }
        match connect(&self.shared.options).await {
            Ok(open) => {
                *self.shared.open.write() = open;
                log::info!(server:% = self.server(); "API server address and credentials reloaded");
            }
            Err(err) => log::warn!(why:% = format!("{err:#}"); "cannot reload the credentials"),
        }
    }
}

async fn connect(options: &ClusterOptions) -> anyhow::Result<OpenConnection> {
    let mut config = config(options).await?;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    config.reset_reader_on_write = true;
    // The audit log names who has made a request.
    config.headers.push((USER_AGENT, HeaderValue::from_static(CLIENT_NAME)));
    // The queue tries again by itself and has to know of each failure.
    config.default_retry = false;
    let (url, port) = (&config.cluster_url, config.cluster_url.port_u16());
    let port = port.map_or_else(String::new, |port| format!(":{port}"));
    let server =
        format!("{}://{}{port}", url.scheme_str().unwrap_or_default(), url.host().unwrap_or_default());
    if let Some(user) = &options.impersonate {
        config.auth_info.impersonate = Some(user.clone());
    }
    let client = Client::try_from(config).context("cannot set up the connection to the API server")?;
    let context = context(options).map(Arc::from);
    Ok(OpenConnection { client, server: server.into(), context, since: Instant::now() })
}

/// The context that was used. Without a kubeconfig there is none.
fn context(options: &ClusterOptions) -> Option<String> {
    options.context.clone().or_else(|| {
        let kubeconfig = match &options.kubeconfig {
            Some(file) => Kubeconfig::read_from(file),
            None => Kubeconfig::read(),
        };
        kubeconfig.ok()?.current_context.filter(|context| !context.is_empty())
    })
}

async fn config(options: &ClusterOptions) -> anyhow::Result<Config> {
    let ClusterOptions { kubeconfig, context, .. } = options;
    let selection = KubeConfigOptions { context: context.clone(), ..KubeConfigOptions::default() };
    match (kubeconfig, context) {
        (Some(file), _) => {
            let parsed = Kubeconfig::read_from(file).with_context(|| format!("cannot read {}", file.display()))?;
            let config = Config::from_custom_kubeconfig(parsed, &selection).await;
            config.with_context(|| format!("cannot use {}", file.display()))
        }
        (None, Some(context)) => {
            let config = Config::from_kubeconfig(&selection).await;
            config.with_context(|| format!("cannot use the context `{context}` of the kubeconfig"))
        }
        (None, None) => Config::infer().await.context(
            "no cluster to talk to: neither a kubeconfig nor a service account; give --kubeconfig, or do without a cluster: \
             --manifests DIR to serve, --no-cluster to check",
        ),
    }
}
