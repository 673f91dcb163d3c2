//! The deliveries of the demo, in order.

use super::{MAX_ANSWER_BYTES, Tampering, UNTAMPERED};
use crate::cli::send::made_up_commit;
use crate::event::git_ref::GitRef;
use crate::event::image::ImageReference;
use crate::event::repository_url::RepositoryUrl;
use crate::provider::{Provider, Sample, UnsignedDelivery};

/// A delivery of the demo and what is said about it.
pub(super) struct DemoStep {
    /// The endpoint that it goes to.
    pub(super) endpoint: &'static str,
    /// What it is about, for the table.
    pub(super) what: &'static str,
    /// Writes it as the provider would.
    pub(super) delivery: Write,
    /// What happens to it on its way.
    pub(super) tampering: Tampering,
    /// Status, outcome and number of objects that make it a success.
    pub(super) expect: ExpectedOutcome,
}

/// The outcome that the demo expects.
#[derive(Debug, Clone, Copy)]
pub(super) struct ExpectedOutcome {
    pub(super) status: u16,
    /// Empty where the answer says nothing.
    pub(super) outcome: &'static str,
    pub(super) targets: usize,
}

const fn expect(status: u16, outcome: &'static str, targets: usize) -> ExpectedOutcome {
    ExpectedOutcome { status, outcome, targets }
}

pub(super) fn scenes() -> Vec<DemoStep> {
    let shop = "https://github.com/example-org/shop";
    vec![
        scene("github", "a push to main", push(shop, GitRef::branch("main")), expect(202, "accepted", 1)),
        scene("github", "a new tag v1.4.2", push(shop, GitRef::tag("v1.4.2")), expect(202, "accepted", 1)),
        scene(
            "github",
            "a push to a branch that nothing tracks",
            push(shop, GitRef::branch("try-this")),
            expect(200, "unmatched", 0),
        ),
        scene(
            "github",
            "an image in GHCR",
            image("ghcr.io/example-org/manifests/shop:latest"),
            expect(202, "accepted", 1),
        ),
        scene(
            "github",
            "a ping",
            Box::new(|provider| compose(provider, &Sample::Ping)),
            expect(200, "pong", 0),
        ),
        DemoStep {
            tampering: Tampering::Forged,
            ..scene("github", "a forged push", push(shop, GitRef::branch("main")), expect(401, "", 0))
        },
        scene("github", "an oversized body", Box::new(oversized), expect(413, "too_large", 0)),
        scene(
            "gitlab",
            "a push to main",
            push("git@gitlab.example.com:platform/infrastructure.git", GitRef::branch("main")),
            expect(202, "accepted", 1),
        ),
        scene(
            "bitbucket",
            "a push to main",
            push("https://bitbucket.org/example-org/docs", GitRef::branch("main")),
            expect(202, "accepted", 1),
        ),
        scene(
            "gitea",
            "a push that only a suspended object tracks",
            push("https://gitea.example.com/team/frozen", GitRef::branch("main")),
            expect(200, "unmatched", 0),
        ),
        scene("harbor", "an image", image("harbor.example.com/shop/api:1.4.2"), expect(202, "accepted", 1)),
        scene(
            "nexus",
            "a Helm chart",
            image("registry.example.com/charts/web:2.1.0"),
            expect(202, "accepted", 1),
        ),
        scene("dockerhub", "an image", image("exampleorg/worker:7"), expect(202, "accepted", 1)),
    ]
}

type Write = Box<dyn Fn(&Provider) -> anyhow::Result<UnsignedDelivery>>;

fn scene(endpoint: &'static str, what: &'static str, delivery: Write, expect: ExpectedOutcome) -> DemoStep {
    DemoStep { endpoint, what, delivery, tampering: UNTAMPERED, expect }
}

fn push(repository: &'static str, name: GitRef) -> Write {
    Box::new(move |provider| {
        let repository = RepositoryUrl::parse(repository)?;
        compose(provider, &Sample::Push { repository, name: name.clone(), commit: made_up_commit() })
    })
}

fn image(reference: &'static str) -> Write {
    Box::new(move |provider| {
        compose(provider, &Sample::Image { reference: ImageReference::parse(reference)? })
    })
}

fn oversized(provider: &Provider) -> anyhow::Result<UnsignedDelivery> {
    let mut composed = compose(provider, &Sample::Ping)?;
    composed.body.push_str(&" ".repeat(MAX_ANSWER_BYTES));
    Ok(composed)
}

fn compose(provider: &Provider, change: &Sample) -> anyhow::Result<UnsignedDelivery> {
    Ok((provider.compose)(change)?)
}
