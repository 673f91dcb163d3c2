//! The cluster suite: the real binary against a real kube-apiserver and etcd with Flux's real CRDs,
//! as the ServiceAccount that the manifests make; and with a real Gitea and source-controller.
//!
//! The scenarios share one cluster and run one after the other, so the suite has a `main` of its
//! own. Where the parts have not been built it says so in one line.

mod absence;
mod bed;
mod chain;
mod chart;
#[allow(dead_code, reason = "each suite uses a part of it")]
#[path = "../common/mod.rs"]
mod common;
mod costs;
mod deploy;
mod events;
mod faults;
mod fleet;
mod gitea;
mod hook;
mod hostile;
mod issuer;
mod jetstream;
mod named_kinds;
mod quick_start;
mod receive;
mod receivers;
mod registry;

use std::process::ExitCode;
use std::sync::Arc;

use bed::{Bed, Parts};
use common::process;
use libtest_mimic::{Arguments, Trial};

/// The scenarios in the order in which they run, each named after its function.
macro_rules! scenarios {
    ($($module:ident::$name:ident,)*) => {
        [$((stringify!($name), $module::$name as fn(&Bed))),*]
    };
}

type Scenario = (&'static str, fn(&Bed));

const SCENARIOS: &[Scenario] = &scenarios![
    deploy::every_kustomization_and_example_passes_the_api_server,
    deploy::pod_templates_pass_restricted_pod_security,
    deploy::the_sidecar_goes_over_flux_and_beside_users_patches,
    deploy::the_flux_instance_makes_the_same_sidecar,
    deploy::the_manifests_rbac_is_the_table_of_kinds_and_no_more,
    chart::chart_and_kustomization_say_the_same,
    chart::the_chart_refuses_what_does_not_fit_together,
    chart::the_chart_with_values_of_every_kind_passes_the_api_server,
    chart::the_charts_schema_and_the_parser_agree,
    chart::the_chart_is_installed_upgraded_and_removed,
    chart::the_chart_goes_through_a_registry,
    chart::what_the_chart_has_from_elsewhere_is_current,
    fleet::the_fleet_example_runs_with_the_tokens_that_it_makes,
    fleet::who_was_away_costs_its_api_server_a_handful_of_writes,
    fleet::fault_fleet_publisher_and_subscriber_are_killed,
    fleet::fault_fleet_the_subscribers_api_server_is_down,
    fleet::fault_fleet_the_connection_is_cut_every_second,
    fleet::fault_fleet_the_log_is_trimmed_and_the_journal_deleted,
    receive::a_push_annotates_exactly_its_objects,
    receive::a_call_asks_for_what_is_listed_by_label,
    receive::only_the_one_annotation_is_touched,
    receive::images_and_charts_annotate_their_kinds,
    receive::changes_of_objects_are_observed,
    receive::the_sidecars_token_does_the_job,
    receive::a_forbidden_cluster_falls_back_to_the_own_namespace,
    receive::a_forbidden_namespace_does_not_stop_the_others,
    receive::a_kind_that_cannot_be_listed_is_never_called_known,
    receive::namespaces_limit_what_is_watched,
    receive::a_stale_token_is_read_again,
    receive::deliveries_before_the_sync_are_queued,
    receive::sigterm_asks_for_what_was_accepted,
    receive::check_tells_rights_and_counts,
    named_kinds::kinds_that_an_endpoint_names_are_watched_and_requested,
    receivers::receivers_are_served_as_notification_controller_serves_them,
    registry::a_registrys_notifications_reach_the_oci_repository,
    registry::a_signature_reaches_those_who_verify_it,
    receivers::receivers_and_their_secrets_are_observed,
    receivers::a_role_that_names_its_secrets_is_enough,
    absence::an_absence_is_caught_up_with,
    absence::what_a_watch_missed_is_requested,
    hostile::hostile_receivers_hold_up_no_others,
    hostile::a_path_cannot_be_taken_by_a_younger_receiver,
    hostile::the_admission_policy_lets_one_annotation_pass,
    hostile::patterns_of_a_tenant_take_no_time,
    events::objects_are_told_under_the_rights_of_the_component,
    events::notification_controller_takes_events_to_an_alert,
    hook::webhooks_at_gitea_are_created_changed_tested_and_deleted,
    hook::what_no_webhook_covers_is_found,
    quick_start::the_quick_start_of_readme_leads_to_a_requested_object,
    costs::deliveries_cost_the_api_server_a_handful_of_requests,
    costs::a_thousand_objects_are_known,
    faults::fault_killed_at_random_moments,
    faults::fault_the_api_server_is_down,
    faults::fault_killed_while_the_api_server_is_down,
    faults::fault_sigterm_under_load,
    faults::fault_the_disk_is_full,
    faults::fault_a_read_only_disk_stops_the_start,
    jetstream::fault_jetstream_servers_leaders_and_replicas_are_killed,
    jetstream::fault_jetstream_replicas_roll_three_times,
    chain::quick_pushes_survive_restarts_of_the_api_server,
    chain::a_webhook_before_its_ref_is_followed_to_the_artifact,
    chain::a_test_delivery_is_waited_for_once_and_not_followed_up,
    chain::what_includes_a_repository_shows_its_push,
    chain::a_pull_request_reaches_its_ref,
    chain::twenty_pushes_to_gitea_reach_the_artifact,
    chain::twenty_pushes_through_a_publisher_reach_another_cluster,
];

fn main() -> ExitCode {
    // They share one cluster.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    if arguments.list {
        return libtest_mimic::run(&arguments, trials(None)).exit_code();
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
    let bed = Arc::new(Bed::start(parts));
    let conclusion = libtest_mimic::run(&arguments, trials(Some(&bed)));
    // The processes of the cluster end with it.
    drop(bed);
    conclusion.exit_code()
}

fn trials(bed: Option<&Arc<Bed>>) -> Vec<Trial> {
    let trial = |(name, scenario): &Scenario| {
        let (scenario, bed) = (*scenario, bed.cloned());
        Trial::test(*name, move || {
            bed.iter().for_each(|bed| scenario(bed));
            Ok(())
        })
    };
    SCENARIOS.iter().map(trial).collect()
}
