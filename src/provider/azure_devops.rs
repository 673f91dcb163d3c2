//! Azure DevOps Services and Server: the service hook "Web Hooks".
//! <https://learn.microsoft.com/en-us/azure/devops/service-hooks/services/webhooks>

use serde::Deserialize;
use serde_json::json;

use super::shared::batch::BoundedList;
use super::shared::{git_event, pull_request_refs, pushed_ref};
use super::{
    CannotCompose, EventSettings, ParseContext, Parsed, Provider, ProviderSettings, Sample, UnsignedDelivery,
};
use crate::event::{GitChanges, Subject};
use crate::verify::{Authentication, Unreadable, Verified};

pub(super) const PROVIDER: Provider = Provider {
    name: "AzureDevOps",
    handled_events: "pushes of branches and tags, pull requests",
    authentication: Authentication::Configured,
    parse,
    compose,
    event_fields: &["/eventType"],
    may_come_unsigned: true,
    subjects: &[Subject::Git],
    settings: ProviderSettings {
        page: "project → Project settings → Service hooks → Create subscription → Web Hooks",
        content_type: None,
        secret: "none: keep the URL secret",
        events: EventSettings::Described(
            "Code pushed; Resource details to send: All; for objects that track a pull request also Pull request created and updated",
        ),
    },
    ..Provider::BASE
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServiceHook {
    event_type: String,
    resource: Option<Resource>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    repository: Option<Repository>,
    ref_updates: Option<BoundedList<RefUpdate>>,
    pull_request_id: Option<u64>,
    last_merge_source_commit: Option<Commit>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Commit {
    commit_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Repository {
    remote_url: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RefUpdate {
    name: String,
    new_object_id: Option<String>,
}

/// The one URL of the payload stands for all spellings: the normal form knows them.
fn parse(delivery: &Verified<'_>, _: &ParseContext<'_>) -> Result<Parsed, Unreadable> {
    let hook: ServiceHook = delivery.json()?;
    match hook.event_type.as_str() {
        "git.push" => {}
        "git.pullrequest.created" | "git.pullrequest.updated" => return pull_request(hook.resource),
        event => return Ok(Parsed::ignored_event(event)),
    }
    let details = hook.resource.and_then(|resource| Some((resource.repository?, resource.ref_updates?)));
    let Some((repository, updates)) = details else {
        return Ok(Parsed::ignored("the push comes without details; set `Resource details to send` to All"));
    };
    if updates.is_cut {
        return git_event([repository.remote_url.as_deref()], None, GitChanges::Unknown);
    }
    let refs: Result<Vec<_>, Unreadable> = updates
        .items
        .iter()
        .map(|update| pushed_ref(&update.name, update.new_object_id.as_deref(), false, None, None))
        .collect();
    match refs? {
        refs if refs.is_empty() => Ok(Parsed::ignored("no ref has changed")),
        refs => git_event([repository.remote_url.as_deref()], None, GitChanges::Refs(refs)),
    }
}

/// An update may be a vote or a comment as well; the payload does not say.
fn pull_request(resource: Option<Resource>) -> Result<Parsed, Unreadable> {
    let details = resource.and_then(|resource| {
        Some((resource.repository?, resource.pull_request_id?, resource.last_merge_source_commit))
    });
    let Some((repository, number, head)) = details else {
        return Ok(Parsed::ignored("the event comes without details; set `Resource details to send` to All"));
    };
    let head = head.and_then(|commit| commit.commit_id);
    let refs = pull_request_refs(&format!("refs/pull/{number}"), head.as_deref());
    git_event([repository.remote_url.as_deref()], None, GitChanges::Refs(refs))
}

fn compose(change: &Sample) -> Result<UnsignedDelivery, CannotCompose> {
    let (repository, name, commit) = change.only_push()?;
    Ok(UnsignedDelivery::json(
        &[],
        &json!({
            "eventType": "git.push",
            "resource": {
                "refUpdates": [{"name": name.as_str(), "newObjectId": commit}],
                "repository": {"remoteUrl": repository.to_string()},
            },
        }),
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::shared::testing::{self, check, check_composed_delivery_comes_back};
    use super::*;

    #[test]
    fn pushes_are_read() {
        let update =
            |name: &str, object: &str| json!({"name": name, "oldObjectId": "0000", "newObjectId": object});
        let push = |updates: serde_json::Value| {
            let repository = json!({"remoteUrl": "https://org@dev.azure.com/org/My%20Project/_git/app"});
            json!({"eventType": "git.push", "resource": {"repository": repository, "refUpdates": updates}})
        };
        let moved = push(json!([update("refs/heads/main", "1111"), update("refs/tags/v1", "0000")]));
        check(
            &PROVIDER,
            &[],
            &moved,
            "push to dev.azure.com/org/my project/app main, refs/tags/v1 (deleted)",
        );
        testing::check_malformed(&PROVIDER, &[], &moved);
        check(&PROVIDER, &[], &push(json!([])), "ignored: no ref has changed");
        check(
            &PROVIDER,
            &[],
            &json!({"eventType": "git.push", "resource": {"pushId": 1}}),
            "ignored: the push comes without details; set `Resource details to send` to All",
        );
        check(
            &PROVIDER,
            &[],
            &json!({"eventType": "git.pullrequest.merged"}),
            "ignored: event type `git.pullrequest.merged` is not handled",
        );
    }

    #[test]
    fn pull_requests_move_their_own_refs() {
        let repository = json!({"remoteUrl": "https://org@dev.azure.com/org/project/_git/app"});
        for event in ["git.pullrequest.created", "git.pullrequest.updated"] {
            let body = json!({"eventType": event, "resource": {
                "pullRequestId": 7, "repository": repository, "lastMergeSourceCommit": {"commitId": "1111"},
            }});
            check(
                &PROVIDER,
                &[],
                &body,
                "push to dev.azure.com/org/project/app refs/pull/7/head, refs/pull/7/merge",
            );
            testing::check_malformed(&PROVIDER, &[], &body);
        }
    }

    #[test]
    fn composed_deliveries_come_back() {
        check_composed_delivery_comes_back(&PROVIDER);
    }
}
