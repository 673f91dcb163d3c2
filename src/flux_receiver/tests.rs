use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{FluxReceiver, ReceiverDefaults, Secret, convert, endpoint};

fn receiver(spec: Value) -> FluxReceiver {
    let mut all = json!({"type": "github", "secretRef": {"name": "s"}, "resources": [{"kind": "GitRepository", "name": "app"}]});
    all.as_object_mut().expect("a mapping").extend(spec.as_object().expect("a mapping").clone());
    let spec = serde_json::from_value(all).expect("a spec");
    FluxReceiver {
        namespace: "apps".to_owned(),
        name: "hook".to_owned(),
        created: String::new(),
        uid: String::new(),
        spec,
        webhook_path: None,
    }
}

fn secret(token: &str) -> Secret {
    Secret { token: Some(Zeroizing::new(token.as_bytes().to_vec())), email: None, audience: None }
}

fn why_not(spec: Value, secret: Option<&Secret>) -> String {
    endpoint(&receiver(spec), secret, ReceiverDefaults::default()).err().expect("a reason").to_string()
}

#[test]
fn the_path_is_that_of_notification_controller() {
    let made = endpoint(&receiver(json!({})), Some(&secret("token")), ReceiverDefaults::default())
        .expect("an endpoint");
    // printf tokenhookapps | sha256sum
    assert_eq!(
        made.endpoint.path(),
        "/hook/4d50eaeef30b65979985f793418582be2dd4510f182cb0f18233827edafdbb84"
    );
}

#[test]
fn what_hinders_a_receiver_names_the_field() {
    let token = secret("token");
    for (spec, expect) in [
        (json!({"type": "gogs"}), "spec.type: `gogs` is unknown; known are "),
        (json!({"secretRef": null}), "spec.secretRef: is missing"),
        (json!({"resourceFilter": "res.x =="}), "spec.resourceFilter: cannot be read"),
        (
            json!({"resources": [{"kind": "Bucket", "name": "x", "filter": "res.x =="}]}),
            "spec.resources[0].filter: cannot be read",
        ),
        (
            json!({"resources": [{"kind": "Deployment", "name": "x"}]}),
            "spec.resources: none of them can be requested: spec.resources[0].kind: `Deployment`",
        ),
        (json!({"type": "gcr"}), "spec.secretRef: Secret/apps/s has no key `email`"),
        (json!({"type": "generic-oidc"}), "spec.oidcProviders: is empty"),
        (
            json!({"type": "generic-oidc", "oidcProviders": [{"issuerURL": "https://x"}]}),
            "spec.oidcProviders[0].validations: is empty",
        ),
    ] {
        let why = why_not(spec, Some(&token));
        assert!(why.to_string().starts_with(expect), "{why}");
    }
    assert_eq!(why_not(json!({}), None), "spec.secretRef: Secret/apps/s is not there, or may not be read");
    // Incident 11.
    assert_eq!(why_not(json!({}), Some(&secret(""))), "spec.secretRef: `token` of Secret/apps/s is empty");
    let nothing = Secret { token: None, email: None, audience: None };
    assert_eq!(why_not(json!({}), Some(&nothing)), "spec.secretRef: Secret/apps/s has no key `token`");
}

#[test]
fn no_labels_are_none_and_an_empty_list_of_them_is_met_by_all() {
    let listed =
        |labels: Value| json!({"resources": [{"kind": "GitRepository", "name": "*", "matchLabels": labels}]});
    let made = endpoint(&receiver(listed(json!({}))), Some(&secret("token")), ReceiverDefaults::default());
    let resource = &made.expect("an endpoint").endpoint.selection.resources[0];
    assert!(resource.name.is_none() && resource.labels.is_empty());
    let why = why_not(listed(Value::Null), Some(&secret("token")));
    assert!(why.contains("spec.resources[0].matchLabels: is missing"), "{why}");
}

// Incident 33.
#[test]
fn other_namespaces_are_closed_unless_they_are_opened() {
    let spec = json!({"resources": [{"kind": "GitRepository", "name": "a"}, {"kind": "GitRepository", "name": "b", "namespace": "other"}]});
    let receiver = receiver(spec);
    let open = ReceiverDefaults { cross_namespace_refs: true, ..ReceiverDefaults::default() };
    let made = endpoint(&receiver, Some(&secret("token")), open).expect("an endpoint");
    assert_eq!(made.endpoint.selection.resources.len(), 2);
    let made = endpoint(&receiver, Some(&secret("token")), ReceiverDefaults::default()).expect("an endpoint");
    assert_eq!(made.endpoint.selection.resources.len(), 1);
    assert_eq!(
        made.without_effect,
        ["spec.resources[1].namespace: references another namespace; --cross-namespace-refs allows that"]
    );
}

#[test]
fn both_filters_have_to_hold_also_with_comments_in_them() {
    let spec = json!({"resourceFilter": "true // always", "resources": [{"kind": "GitRepository", "name": "a", "filter": "res.metadata.name == 'a'"}]});
    let made =
        endpoint(&receiver(spec), Some(&secret("token")), ReceiverDefaults::default()).expect("an endpoint");
    let filter = made.endpoint.selection.resources[0].filter.as_ref().expect("a filter");
    assert_eq!(filter.text(), "(true // always\n) && (res.metadata.name == 'a'\n)");
}

#[test]
fn an_entry_keeps_the_url_and_says_what_does_not_map() {
    let spec = json!({"events": ["push"], "resources": [
        {"kind": "GitRepository", "name": "*", "matchLabels": {"a": "b"}, "filter": "true"},
        {"kind": "Deployment", "name": "x"},
        {"kind": "Bucket", "name": "*"},
        {"apiVersion": "example.com/v1", "kind": "Bucket", "name": "x"},
    ]});
    let converted = convert(&receiver(spec), None).expect("an entry");
    assert_eq!(
        Value::Object(converted.entry),
        json!({
            "source": "GitHub", "keyPath": "apps.hook.key", "name": "Receiver/apps/hook", "pathSalt": "hookapps",
            "events": ["push"], "namespaces": ["apps"], "match": "all",
            "resources": [{"kind": "GitRepository", "name": "*", "namespace": "apps", "matchLabels": {"a": "b"}, "filter": "true"}],
        })
    );
    assert_eq!(
        converted.notes,
        [
            "takes POST alone, and bodies that GitHub sends, where the Receiver took any method and body",
            "spec.resources[1].kind: `Deployment` is not a kind that flux-recv handles, so it is left out",
            "spec.resources[2].matchLabels: is missing, without it the name `*` selects nothing, so it is left out",
            "spec.resources[3].apiVersion: `example.com/v1` is not a version of Bucket, so it is left out",
        ]
    );
}

#[test]
fn what_cannot_be_served_makes_no_entry() {
    for (spec, expect) in [
        (json!({"resourceFilter": "res.x =="}), "spec.resourceFilter: cannot be read"),
        (json!({"type": "generic-oidc", "secretRef": null}), "spec.oidcProviders: is empty"),
    ] {
        let why = convert(&receiver(spec), None).err().expect("a reason").to_string();
        assert!(why.to_string().starts_with(expect), "{why}");
    }
}
