//! The differences from flux-recv for Flux v1, for config files that could have been written for it.

use crate::endpoint::Endpoint;
use crate::endpoint::registry::Endpoints;

/// Whom a difference concerns, and what it is.
struct Difference {
    concerns: fn(&Endpoint) -> bool,
    text: &'static str,
}

const FLUX_V1_DIFFERENCES: [Difference; 4] = [
    Difference {
        concerns: |endpoint| endpoint.provider.name == "BitbucketCloud" && !endpoint.credentials.unsigned,
        text: "deliveries have to be signed now; set the key as Secret at Bitbucket, or `unsigned: true` here",
    },
    Difference {
        concerns: |endpoint| {
            matches!(
                endpoint.provider.name,
                "GitLab" | "BitbucketCloud" | "BitbucketServer" | "Harbor" | "Nexus"
            )
        },
        text: "events that are of no interest are answered with 200 now, no longer with 400",
    },
    Difference {
        concerns: |endpoint| {
            matches!(endpoint.provider.name, "GitHub" | "GitLab" | "BitbucketCloud" | "BitbucketServer")
        },
        text: "deleted branches and tags are no longer forwarded",
    },
    Difference {
        concerns: |endpoint| endpoint.provider.name == "GoogleContainerRegistry",
        text: "a wrong identity token is answered with 401 now, no longer with 200",
    },
];

/// A line for each difference that concerns an endpoint.
pub(super) fn to_flux_v1(endpoints: &Endpoints) -> Vec<String> {
    let mut lines = Vec::new();
    for Difference { concerns, text } in FLUX_V1_DIFFERENCES {
        let names: Vec<&str> =
            endpoints.iter().filter(|endpoint| concerns(endpoint)).map(|endpoint| &*endpoint.name).collect();
        if !names.is_empty() {
            lines.push(format!("differs from flux-recv for Flux v1 ({}): {text}", names.join(", ")));
        }
    }
    lines
}
