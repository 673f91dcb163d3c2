//! The cluster suite: the real binary against a real kube-apiserver and etcd with Flux's real CRDs,
//! as the ServiceAccount that the manifests make; and with a real Gitea and source-controller.
//!
//! The scenarios share one cluster and run one after the other, so the suite has a `main` of its
//! own. Where the parts have not been built it says so in one line.

mod absence;
mod bed;
mod chain;
#[path = "../common/mod.rs"]
mod common;
mod costs;
mod deploy;
mod faults;
mod gitea;
mod hostile;
mod issuer;
mod named_kinds;
mod process;
mod receive;
mod receivers;
mod registry;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::time::Instant;

use bed::{Bed, Parts};
use common::log;

type Scenario = (&'static str, fn(&Bed));

const SCENARIOS: &[Scenario] = &[
    (
        "every_kustomization_and_example_passes_the_api_server",
        deploy::every_kustomization_and_example_passes_the_api_server,
    ),
    ("pod_templates_pass_restricted_pod_security", deploy::pod_templates_pass_restricted_pod_security),
    (
        "the_sidecar_goes_over_flux_and_beside_users_patches",
        deploy::the_sidecar_goes_over_flux_and_beside_users_patches,
    ),
    ("the_flux_instance_makes_the_same_sidecar", deploy::the_flux_instance_makes_the_same_sidecar),
    (
        "the_manifests_rbac_is_the_table_of_kinds_and_no_more",
        deploy::the_manifests_rbac_is_the_table_of_kinds_and_no_more,
    ),
    ("a_push_annotates_exactly_its_objects", receive::a_push_annotates_exactly_its_objects),
    ("a_call_asks_for_what_is_listed_by_label", receive::a_call_asks_for_what_is_listed_by_label),
    ("only_the_one_annotation_is_touched", receive::only_the_one_annotation_is_touched),
    ("images_and_charts_annotate_their_kinds", receive::images_and_charts_annotate_their_kinds),
    ("changes_of_objects_are_followed", receive::changes_of_objects_are_followed),
    ("the_sidecars_token_does_the_job", receive::the_sidecars_token_does_the_job),
    (
        "a_forbidden_cluster_falls_back_to_the_own_namespace",
        receive::a_forbidden_cluster_falls_back_to_the_own_namespace,
    ),
    (
        "a_forbidden_namespace_does_not_stop_the_others",
        receive::a_forbidden_namespace_does_not_stop_the_others,
    ),
    (
        "a_kind_that_cannot_be_listed_is_never_called_known",
        receive::a_kind_that_cannot_be_listed_is_never_called_known,
    ),
    ("namespaces_limit_what_is_watched", receive::namespaces_limit_what_is_watched),
    ("a_stale_token_is_read_again", receive::a_stale_token_is_read_again),
    ("deliveries_before_the_sync_are_queued", receive::deliveries_before_the_sync_are_queued),
    ("sigterm_asks_for_what_was_accepted", receive::sigterm_asks_for_what_was_accepted),
    ("check_tells_rights_and_counts", receive::check_tells_rights_and_counts),
    (
        "kinds_that_an_endpoint_names_are_watched_and_asked",
        named_kinds::kinds_that_an_endpoint_names_are_watched_and_asked,
    ),
    (
        "receivers_are_served_as_notification_controller_serves_them",
        receivers::receivers_are_served_as_notification_controller_serves_them,
    ),
    (
        "a_registrys_notifications_reach_the_oci_repository",
        registry::a_registrys_notifications_reach_the_oci_repository,
    ),
    ("a_signature_reaches_those_who_verify_it", registry::a_signature_reaches_those_who_verify_it),
    ("receivers_and_their_secrets_are_followed", receivers::receivers_and_their_secrets_are_followed),
    ("a_role_that_names_its_secrets_is_enough", receivers::a_role_that_names_its_secrets_is_enough),
    ("an_absence_is_caught_up_with", absence::an_absence_is_caught_up_with),
    ("what_a_watch_missed_is_requested", absence::what_a_watch_missed_is_requested),
    ("hostile_receivers_hold_up_no_others", hostile::hostile_receivers_hold_up_no_others),
    ("a_path_cannot_be_taken_by_a_younger_receiver", hostile::a_path_cannot_be_taken_by_a_younger_receiver),
    ("the_admission_policy_lets_one_annotation_pass", hostile::the_admission_policy_lets_one_annotation_pass),
    ("patterns_of_a_tenant_take_no_time", hostile::patterns_of_a_tenant_take_no_time),
    (
        "deliveries_cost_the_api_server_a_handful_of_requests",
        costs::deliveries_cost_the_api_server_a_handful_of_requests,
    ),
    ("a_thousand_objects_are_known", costs::a_thousand_objects_are_known),
    ("fault_killed_at_random_moments", faults::fault_killed_at_random_moments),
    ("fault_the_api_server_is_down", faults::fault_the_api_server_is_down),
    ("fault_killed_while_the_api_server_is_down", faults::fault_killed_while_the_api_server_is_down),
    ("fault_sigterm_under_load", faults::fault_sigterm_under_load),
    ("fault_the_disk_is_full", faults::fault_the_disk_is_full),
    ("fault_a_read_only_disk_stops_the_start", faults::fault_a_read_only_disk_stops_the_start),
    (
        "quick_pushes_survive_restarts_of_the_api_server",
        chain::quick_pushes_survive_restarts_of_the_api_server,
    ),
    (
        "a_webhook_before_its_ref_is_followed_to_the_artifact",
        chain::a_webhook_before_its_ref_is_followed_to_the_artifact,
    ),
    ("what_includes_a_repository_shows_its_push", chain::what_includes_a_repository_shows_its_push),
    ("a_pull_request_reaches_its_ref", chain::a_pull_request_reaches_its_ref),
    ("twenty_pushes_to_gitea_reach_the_artifact", chain::twenty_pushes_to_gitea_reach_the_artifact),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        SCENARIOS.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let wanted =
        |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    let scenarios: Vec<&Scenario> = SCENARIOS.iter().filter(|(name, _)| wanted(name)).collect();
    if scenarios.is_empty() {
        return ExitCode::SUCCESS;
    }
    let parts = match Parts::find() {
        Ok(parts) => parts,
        Err(missing) => {
            println!(
                "cluster suite skipped: {missing} is not built; tests/testbed/build builds it (ten minutes, once)"
            );
            let in_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
            return if in_ci { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    let _ = rustls::crypto::ring::default_provider().install_default();
    println!("\nrunning {} tests", scenarios.len());
    let bed = Bed::start(parts);
    let started = Instant::now();
    let mut failed = Vec::new();
    for (name, scenario) in &scenarios {
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| scenario(&bed)));
        println!("test {name} ... {}", if outcome.is_ok() { "ok" } else { "FAILED" });
        if outcome.is_err() {
            failed.push(*name);
        }
    }
    drop(bed);
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {} passed; {} failed; 0 ignored; 0 measured; {} filtered out; finished in {:.2}s\n",
        scenarios.len() - failed.len(),
        failed.len(),
        SCENARIOS.len() - scenarios.len(),
        started.elapsed().as_secs_f64(),
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
