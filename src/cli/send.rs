//! `flux-recv send`: a delivery as the endpoint's provider would post it.

mod wait;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use clap::Args;

use super::urls::check_base;
use super::{ClusterArgs, ConfigArgs, endpoint_named, runtime, say, with_causes};
use crate::config::{self, Rules};
use crate::delivery::Delivery;
use crate::endpoint::Endpoint;
use crate::event::git_ref::GitRef;
use crate::event::image::ImageReference;
use crate::event::repository_url::RepositoryUrl;
use crate::provider::{EventHeader, Sample, UnsignedDelivery};
use crate::verify::sign::sign;
use crate::verify::test_mark;

#[derive(Debug, Args)]
pub(super) struct SendArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The endpoint, by its name.
    #[arg(long, value_name = "NAME")]
    endpoint: String,
    /// The scheme and host that flux-recv is reached at
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", env = "FLUX_RECV_BASE")]
    to: String,
    /// `push`, `ping`, or with --body the provider's own name of the event.
    #[arg(long, value_name = "EVENT")]
    event: Option<String>,
    /// Any URL of the repository that was pushed to.
    #[arg(long, value_name = "URL", conflicts_with_all = ["image", "body"])]
    repo: Option<String>,
    /// The branch that moved, or a full ref such as refs/tags/v1.0.0.
    #[arg(long = "ref", value_name = "REF", default_value = "main", requires = "repo")]
    reference: String,
    /// The commit that it moved to [default: a made-up one].
    #[arg(long, value_name = "SHA", requires = "repo")]
    commit: Option<String>,
    /// The image that was pushed, with its tag.
    #[arg(long, value_name = "IMAGE", conflicts_with = "body")]
    image: Option<String>,
    /// A file that holds the payload.
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// Wait for Flux to handle the requests, and show what became of them.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(super) fn run(args: &SendArgs) -> anyhow::Result<ExitCode> {
    check_base(&args.to, "--to")?;
    let config = config::load(&args.config.config, Rules::default()).config?;
    let endpoint = endpoint_named(&config, &args.endpoint)?;
    let composed = compose(args, endpoint)?;
    let url = format!("{}{}", args.to.trim_end_matches('/'), endpoint.path());
    // A commit that is made up never arrives; one that somebody names may.
    let is_test = args.commit.is_none() && args.body.is_none();
    let posted = jiff::Timestamp::now();
    let runtime = runtime()?;
    let (status, body) = runtime.block_on(post(&url, endpoint, composed, Tampering::None, is_test))?;
    say(&format!("{status} {body}\n"))?;
    if status == 404 {
        bail!("no endpoint has this path there; compare with `flux-recv urls`");
    }
    if status >= 300 {
        return Ok(ExitCode::FAILURE);
    }
    match args.wait {
        true => runtime.block_on(wait::wait(args.cluster.options(), &body, posted)),
        false => Ok(ExitCode::SUCCESS),
    }
}

fn compose(args: &SendArgs, endpoint: &Endpoint) -> anyhow::Result<UnsignedDelivery> {
    if let Some(file) = &args.body {
        let body =
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let mut headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
        if let Some(EventHeader { names: [name, ..], usual }) = endpoint.provider.event_header {
            headers.push(((*name).to_owned(), args.event.clone().unwrap_or_else(|| usual.to_owned())));
        }
        return Ok(UnsignedDelivery { headers, body });
    }
    Ok((endpoint.provider.compose)(&change(args)?)?)
}

fn change(args: &SendArgs) -> anyhow::Result<Sample> {
    match args.event.as_deref() {
        None | Some("push") => {}
        Some("ping") => return Ok(Sample::Ping),
        Some(other) => {
            bail!("the event `{other}` needs a payload: give --body, or --event push or ping without it")
        }
    }
    match (&args.repo, &args.image) {
        (Some(repo), _) => Ok(Sample::Push {
            repository: RepositoryUrl::parse(repo).context("--repo")?,
            name: GitRef::from_full_name(&args.reference).unwrap_or_else(|| GitRef::branch(&args.reference)),
            commit: args.commit.clone().unwrap_or_else(made_up_commit),
        }),
        (None, Some(image)) => {
            Ok(Sample::Image { reference: ImageReference::parse(image).context("--image")? })
        }
        (None, None) => bail!("say what happened: --repo, --image, --body or --event ping"),
    }
}

pub(super) fn made_up_commit() -> String {
    format!("{:016x}{:016x}{:08x}", fastrand::u64(..), fastrand::u64(..), fastrand::u32(..))
}

/// A change that the demo makes to a delivery on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tampering {
    None,
    /// The body is changed after it was signed.
    Forged,
}

const SEND_TIMEOUT: Duration = Duration::from_secs(15);

/// Signs and posts a delivery, marked as a test if it is one; gives status and body of the answer.
pub(super) async fn post(
    url: &str,
    endpoint: &Endpoint,
    composed: UnsignedDelivery,
    tampering: Tampering,
    is_test: bool,
) -> anyhow::Result<(u16, String)> {
    let UnsignedDelivery { headers, mut body } = composed;
    let delivery = Delivery { headers: &headers, body: body.as_bytes() };
    let authentication =
        sign(&delivery, endpoint.provider.authentication, &endpoint.credentials, SystemTime::now())?;
    let mark = test_mark::mark(body.as_bytes(), &endpoint.credentials).filter(|_| is_test);
    if tampering == Tampering::Forged {
        body.push(' ');
    }
    let mut client =
        reqwest::Client::builder().timeout(SEND_TIMEOUT).redirect(reqwest::redirect::Policy::none());
    if is_loopback(url) {
        client = client.no_proxy();
    }
    let client = client.build()?;
    let mut request = client.post(url).body(body);
    for (name, value) in headers.iter().chain(&authentication).chain(&mark) {
        request = request.header(name, value);
    }
    // The URL holds the secret path, which an error must not repeat.
    let response =
        request.send().await.map_err(|err| anyhow::anyhow!("cannot post: {}", causes(err.without_url())))?;
    let status = response.status().as_u16();
    Ok((status, response.text().await.map_err(reqwest::Error::without_url)?))
}

/// A proxy has no business with the secret path of a receiver on this machine.
pub(super) fn is_loopback(url: &str) -> bool {
    let parsed = url::Url::parse(url);
    parsed.is_ok_and(|url| match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    })
}

fn causes(err: reqwest::Error) -> String {
    with_causes(&anyhow::Error::from(err))
}
