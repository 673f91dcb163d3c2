use std::path::Path;

use super::files::FileReader;
use super::keys::KeyFiles;
use super::{Config, Mistakes, Rules};

fn parse(text: &str, folder: &Path) -> Result<Config, Vec<String>> {
    super::parse(text, KeyFiles::new(folder, &mut FileReader::default(), false), Rules::default())
}

fn load(file: &Path) -> Result<Config, Mistakes> {
    super::load(file, Rules::default()).config
}

/// A folder with keys of 24 bytes, each another one.
fn folder(keys: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for key in keys {
        let file = folder.path().join(key);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        std::fs::write(file, format!("test-key-of-{key:->12}")).expect("a key");
    }
    folder
}

fn good(text: &str, folder: &Path) -> Config {
    parse(text, folder).unwrap_or_else(|mistakes| panic!("{mistakes:#?}"))
}

#[track_caller]
fn check_mistakes(text: &str, keys: &[&str], expect: &[&str]) {
    let folder = folder(keys);
    let mistakes = parse(text, folder.path()).err().expect("mistakes");
    let place = folder.path().display().to_string();
    let mistakes: Vec<String> = mistakes.iter().map(|mistake| mistake.replace(&place, "DIR")).collect();
    assert_eq!(mistakes, expect);
}

fn names(config: &Config) -> Vec<&str> {
    config.endpoints.iter().map(|endpoint| &*endpoint.name).collect()
}

#[test]
fn a_file_of_flux_v1_works_as_it_is() {
    let folder = folder(&[]);
    std::fs::write(folder.path().join("bench.key"), "s3cr3t-bench-key").expect("a key");
    let config =
        good("fluxRecvVersion: 1\nendpoints:\n- source: GitHub\n  keyPath: bench.key\n", folder.path());
    let endpoint = config.endpoints.iter().next().expect("an endpoint");
    assert_eq!(endpoint.path(), "/hook/44e942089b94cba356e3cde725a1e4ec483c16717f7e79e7e90f0ed788fa2c3d");
    assert!(config.endpoints.at_path(&endpoint.path()).is_some());
    assert!(config.endpoints.at_path(&endpoint.path().to_uppercase()).is_none());
    assert_eq!(names(&config), ["bench"]);
    assert!(config.api.is_none());
}

#[test]
fn the_config_in_the_values_of_the_chart_is_read() {
    let folder = folder(&["a.key"]);
    let values = "existingSecret: keys\nconfig:\n  fluxRecvVersion: 1\n  endpoints: [{source: GitHub, keyPath: a.key}]\n";
    assert_eq!(names(&good(values, folder.path())), ["a"]);
    check_mistakes(
        "config: {fluxRecvVersion: 1, endpoints: []}",
        &[],
        &[
            "endpoints: lists no endpoint; give at least one with `source` and `keyPath`, or a publisher in `subscribe`",
        ],
    );
}

#[test]
fn the_first_registry_host_salts_unless_a_salt_is_given() {
    let folder = folder(&["a.key"]);
    let path = |extra: &str| {
        let config = good(
            &format!("fluxRecvVersion: 1\nendpoints:\n- source: Nexus\n  keyPath: a.key\n{extra}"),
            folder.path(),
        );
        config.endpoints.iter().next().expect("an endpoint").path()
    };
    let one = path("  registryHost: one.example.com\n");
    assert_eq!(path("  registryHost: [one.example.com, two.example.com]\n"), one);
    assert_ne!(path("  registryHost: [two.example.com, one.example.com]\n"), one);
    assert_ne!(path(""), one);
    assert_eq!(path("  registryHost: two.example.com\n  pathSalt: one.example.com\n"), one);
}

#[test]
fn names_come_from_keys_and_never_stop_an_old_file() {
    let folder = folder(&["keys/github.key", "nexus.key", "same.key", "same.txt", ".hidden"]);
    let text = "
fluxRecvVersion: 1
endpoints:
- {source: GitHub, keyPath: keys/github.key}
- {source: Nexus, keyPath: nexus.key, registryHost: one.example.com}
- {source: Nexus, keyPath: nexus.key, registryHost: two.example.com}
- {source: Nexus, keyPath: nexus.key}
- {source: Quay, keyPath: same.key}
- {source: Quay, keyPath: same.txt}
- {source: Quay, keyPath: .hidden, name: chosen}
";
    let expect = [
        "keys/github",
        "nexus@one.example.com",
        "nexus@two.example.com",
        "nexus",
        "same.key",
        "same.txt",
        "chosen",
    ];
    assert_eq!(names(&good(text, folder.path())), expect);
}

#[test]
fn absolute_keys_are_looked_for_in_the_folder_first() {
    let folder = folder(&["sub/a.key"]);
    let elsewhere = self::folder(&["b.key"]);
    let absolute = elsewhere.path().join("b.key");
    let text = format!(
        "fluxRecvVersion: 1\nendpoints:\n- {{source: Quay, keyPath: /sub/a.key}}\n- {{source: Quay, keyPath: {}}}\n",
        absolute.display()
    );
    let config = good(&text, folder.path());
    let files: Vec<_> = config.endpoints.iter().map(|endpoint| endpoint.key_file.clone()).collect();
    assert_eq!(files, [folder.path().join("sub/a.key"), absolute]);
}

// Incidents 11, 17 and 17b.
#[test]
fn all_mistakes_are_told_at_once() {
    check_mistakes(
        "
fluxRecvVersion: 2
apy: x
endpoints:
- {source: Github, keyPath: a.key}
- {source: Harbour, keyPath: missing.key, regstryHost: x}
- {source: GoogleContainerRegistry, keyPath: b.key}
- {source: GoogleContainerRegistry, keyPath: c.key, gcr: {audience: x, mail: y}}
- {source: Quay, keyPath: empty.key/}
- {keyPath: a.key}
- {source: Quay, keyPath: 7}
- {source: Quay, keyPath: a.key, unsigned: true}
- {source: Quay, keyPath: a.key, gcr: {audience: x, email: y}}
- just text
",
        &["a.key", "b.key", "c.key"],
        &[
            "fluxRecvVersion: is `2`, this flux-recv reads version 1",
            "apy: is an unknown field; did you mean `api`?",
            "endpoint 1 (a.key): source: `Github` is unknown; did you mean `GitHub`?",
            "endpoint 2 (missing.key): regstryHost: is an unknown field; did you mean `registryHost`?",
            "endpoint 2 (missing.key): source: `Harbour` is unknown; did you mean `Harbor`?",
            "endpoint 2 (missing.key): keyPath: cannot read DIR/missing.key: No such file or directory (os error 2); `flux-recv keygen FILE` makes a key",
            "endpoint 3 (b.key): pubsub: is missing; set `audience` and `email` of the subscription's token, without them anyone could post here",
            "endpoint 4 (c.key): gcr: email: is missing",
            "endpoint 4 (c.key): gcr: mail: is an unknown field; did you mean `email`?",
            "endpoint 5 (empty.key/): keyPath: cannot read DIR/empty.key/: No such file or directory (os error 2); `flux-recv keygen FILE` makes a key",
            "endpoint 6 (a.key): source: is missing",
            "endpoint 7: keyPath: must be a string; put it in quotes",
            "endpoint 8 (a.key): unsigned: is only for providers that cannot sign, or could not until lately (BitbucketCloud); remove it",
            "endpoint 9 (a.key): gcr: is only for GoogleContainerRegistry and GCS; remove it",
            "endpoint 10: is not a mapping; write `field: value` lines",
            "endpoint 9 (a.key): keyPath: the key is that of endpoint `a`, so both would have one path; make a key of its own with `flux-recv keygen`, or set `pathSalt` on one of them",
        ],
    );
}

#[test]
fn shared_paths_and_names_are_mistakes() {
    check_mistakes(
        "
fluxRecvVersion: 1
endpoints:
- {source: GitHub, keyPath: a.key}
- {source: GitLab, keyPath: a.key, name: other}
- {source: Quay, keyPath: b.key, name: a}
",
        &["a.key", "b.key"],
        &[
            "endpoint 2 (a.key): keyPath: the key is that of endpoint `a`, so both would have one path; make a key of its own with `flux-recv keygen`, or set `pathSalt` on one of them",
            "endpoint 3 (b.key): name: `a` is the name of the endpoint with key DIR/a.key too; set `name` on one of them",
        ],
    );
}

#[test]
fn files_without_endpoints_or_yaml_are_refused() {
    check_mistakes(
        "fluxRecvVersion: 1\n",
        &[],
        &[
            "endpoints: lists no endpoint; give at least one with `source` and `keyPath`, or a publisher in `subscribe`",
        ],
    );
    check_mistakes(
        "endpoints: {}",
        &[],
        &[
            "fluxRecvVersion: is missing; write `fluxRecvVersion: 1`",
            "endpoints: is not a list; write `- ` before each entry",
            "endpoints: lists no endpoint; give at least one with `source` and `keyPath`, or a publisher in `subscribe`",
        ],
    );
    check_mistakes("", &[], &["is not a mapping; write `field: value` lines"]);
    let err = parse("a: [", Path::new("")).err().expect("a mistake");
    assert!(err[0].starts_with("is not valid YAML: ") && err[0].contains("line"), "{err:?}");
}

#[test]
fn nulls_and_empty_lists_are_mistakes() {
    check_mistakes(
        "
fluxRecvVersion: 1
endpoints:
- {source: GitHub, keyPath: }
- {source: , keyPath: a.key}
- {source: GoogleContainerRegistry, keyPath: a.key, gcr: {audience: , email: x}}
- {source: GitHub, keyPath: a.key, namespaces: []}
",
        &["a.key"],
        &[
            "endpoint 1: keyPath: is missing",
            "endpoint 2 (a.key): source: is missing",
            "endpoint 3 (a.key): gcr: audience: is missing",
            "endpoint 4 (a.key): namespaces: is an empty list; list something or remove it",
            "endpoint 4 (a.key): keyPath: the key is that of endpoint `a`, so both would have one path; make a key of its own with `flux-recv keygen`, or set `pathSalt` on one of them",
        ],
    );
}

// Incident 15.
#[test]
fn proofs_of_others_need_to_say_whose() {
    check_mistakes(
        "
fluxRecvVersion: 1
endpoints:
- {source: generic-oidc, keyPath: a.key, resources: [{kind: Bucket}]}
- source: generic-oidc
  keyPath: b.key
  resources: [{kind: Bucket}]
  oidc:
  - {issuerURL: 'https://token.example.com', audience: x}
  - {issuerURL: token.example.com, claims: {a: b}}
  - {issuerURL: 'https://a.example.com', audience: x, validations: [{expression: claim.a == 'b', message: m}], variables: [{name: n, expression: '1 +'}]}
- {source: SNS, keyPath: c.key}
- {source: SNS, keyPath: d.key, topicArn: my-topic, auth: bearer}
- {source: GitHub, keyPath: e.key, topicArn: 'arn:aws:sns:a:b:c', oidc: [x]}
- {source: ECR, keyPath: f.key}
- {source: GCS, keyPath: g.key}
",
        &["a.key", "b.key", "c.key", "d.key", "e.key", "f.key", "g.key"],
        &[
            "endpoint 1 (a.key): oidc: is missing; list at least one issuer with `issuerURL`, `audience` and `claims` or `validations`",
            "endpoint 2 (b.key): oidc: 1: claims: is missing; say what the token has to claim (`claims: {repository: org/app}`), since public issuers give tokens to anyone",
            "endpoint 2 (b.key): oidc: 2: audience: is missing",
            "endpoint 2 (b.key): oidc: 2: issuerURL: `token.example.com` is not an http(s) URL",
            "endpoint 2 (b.key): oidc: 3: variables: 1: expression: cannot be read: mismatched input 'end' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}\n    | 1 +\n    |    ^",
            "endpoint 2 (b.key): oidc: 3: validations: 1: expression: `claim` is not declared; known are claims, vars\n    | claim.a == 'b'\n    | ^",
            "endpoint 3 (c.key): topicArn: is missing; name the topic, without it anyone's topic could post here",
            "endpoint 4 (d.key): auth: is only for providers that cannot sign, and SNS has an authentication of its own; remove it",
            "endpoint 4 (d.key): topicArn: `my-topic` is not the ARN of a topic; write it like arn:aws:sns:REGION:ACCOUNT:NAME",
            "endpoint 5 (e.key): oidc: is only for generic-oidc; remove it",
            "endpoint 5 (e.key): topicArn: is only for SNS; remove it",
            "endpoint 6 (f.key): source: `ECR` is unknown; its events come through `EventBridge` or `SNS`",
            "endpoint 7 (g.key): pubsub: is missing; set `audience` and `email` of the subscription's token, without them anyone could post here",
        ],
    );
}

// Incident 12: what proves nothing is written out.
#[test]
fn a_sender_that_cannot_sign_needs_a_header_or_a_word() {
    check_mistakes(
        "
fluxRecvVersion: 1
endpoints:
- {source: ACR, keyPath: a.key}
- {source: ACR, keyPath: b.key, auth: bearer, unsigned: true}
- {source: GitHub, keyPath: c.key, auth: bearer}
- {source: ACR, keyPath: d.key, auth: digest}
- {source: ACR, keyPath: e.key, auth: {header: 'X Y'}}
- {source: ACR, keyPath: f.key, unsigned: true, acceptKeyPaths: a.key}
",
        &["a.key", "b.key", "c.key", "d.key", "e.key", "f.key"],
        &[
            "endpoint 1 (a.key): auth: is missing; ACR cannot sign, so say which header holds the key (`auth: bearer`, `auth: basic`, `auth: {header: NAME}`), or `unsigned: true` to accept deliveries from anyone who knows the URL",
            "endpoint 2 (b.key): unsigned: contradicts `auth`; remove one of them",
            "endpoint 3 (c.key): auth: is only for providers that cannot sign, and GitHub has an authentication of its own; remove it",
            "endpoint 4 (d.key): auth: is not one of `bearer`, `basic`, `{basic: USER}` and `{header: NAME}`",
            "endpoint 5 (e.key): auth: header: `X Y` is not the name of a header",
            "endpoint 6 (f.key): acceptKeyPaths: is only for providers that sign with the key; here it makes only the URL, remove it",
        ],
    );
}

// Incident 12: what can be guessed authenticates nobody.
#[test]
fn an_alias_that_cannot_be_served_is_a_mistake() {
    check_mistakes(
        "
fluxRecvVersion: 1
endpoints:
- {source: GitHub, keyPath: a.key, alias: /webhook}
- {source: GitHub, keyPath: b.key, alias: /webhook}
- {source: DockerHub, keyPath: c.key, alias: /hub}
- {source: ACR, keyPath: d.key, alias: /acr, unsigned: true}
- {source: GitHub, keyPath: e.key, alias: /hook/e}
- {source: GitHub, keyPath: f.key, alias: /f/}
- {source: GitHub, keyPath: g.key, alias: webhook}
",
        &["a.key", "b.key", "c.key", "d.key", "e.key", "f.key", "g.key"],
        &[
            "endpoint 5 (e.key): alias: `/hook/e` is a path of flux-recv itself; choose another one",
            "endpoint 6 (f.key): alias: `/f/` is not a plain path; use letters, digits, `-` and `_` between slashes, 128 characters at most",
            "endpoint 7 (g.key): alias: `webhook` does not begin with a slash; write `/webhook`",
            "endpoint 2 (b.key): alias: is the alias of endpoint `a` too; give each its own",
            "endpoint 3 (c.key): alias: can be guessed, and nothing but the hook path authenticates deliveries of DockerHub; remove it",
            "endpoint 4 (d.key): alias: can be guessed, and nothing but the hook path authenticates deliveries of ACR; remove it",
        ],
    );
}

#[test]
fn filters_that_cannot_be_meant_are_mistakes() {
    check_mistakes(
        "
fluxRecvVersion: 1
endpoints:
- {source: DockerHub, keyPath: a.key, events: push, refs: main}
- {source: GitLab, keyPath: b.key, images: [x], refs: ['a[']}
",
        &["a.key", "b.key"],
        &[
            "endpoint 1 (a.key): events: is of no use: DockerHub does not name its events; remove it",
            "endpoint 1 (a.key): refs: is of no use: DockerHub knows no Git repositories; remove it",
            "endpoint 2 (b.key): refs: `a[`: unclosed character class; missing ']'",
            "endpoint 2 (b.key): images: is of no use: GitLab knows no images; remove it",
        ],
    );
}

#[test]
fn expressions_that_cannot_be_read_are_shown() {
    check_mistakes(
        "
fluxRecvVersion: 1
endpoints:
- source: GitHub
  keyPath: a.key
  filter: |
    event.name == 'push' &&
      evnt.refs.size() > 0
- {source: GitHub, keyPath: b.key, filter: res.metadata.name == 'x'}
- {source: DockerHub, keyPath: c.key, paths: apps/**}
- source: GitHub
  keyPath: d.key
  resources: [{kind: GitRepository, filter: 'res.metadata.name +'}]
",
        &["a.key", "b.key", "c.key", "d.key"],
        &[
            "endpoint 1 (a.key): filter: `evnt` is not declared; known are event, req, headers, claims\n    |   evnt.refs.size() > 0\n    |   ^",
            "endpoint 2 (b.key): filter: `res` is not declared; known are event, req, headers, claims\n    | res.metadata.name == 'x'\n    | ^",
            "endpoint 3 (c.key): paths: is of no use: DockerHub does not list the files that a push changes; remove it",
            "endpoint 4 (d.key): resources: 1: filter: cannot be read: mismatched input 'end' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}\n    | res.metadata.name +\n    |                    ^",
        ],
    );
}

#[test]
fn resources_that_cannot_be_meant_are_mistakes() {
    check_mistakes(
        "
fluxRecvVersion: 1
endpoints:
- {source: generic, keyPath: a.key, unsigned: true}
- {source: GitHub, keyPath: b.key, match: all}
- {source: GitHub, keyPath: c.key, match: some}
- {source: GitHub, keyPath: d.key, resources: []}
- source: GitHub
  keyPath: e.key
  resources:
  - {kind: GitRepo, nam: x}
  - {kind: Bucket, apiVersion: v1, matchLabels: {a: 1}}
  - x
",
        &["a.key", "b.key", "c.key", "d.key", "e.key"],
        &[
            "endpoint 1 (a.key): resources: is missing; generic does not say what it is about, so list the objects to request",
            "endpoint 2 (b.key): match: `all` needs `resources` to say all of what",
            "endpoint 3 (c.key): match: `some` is neither `payload` nor `all`",
            "endpoint 4 (d.key): resources: is an empty list; list something or remove it",
            "endpoint 5 (e.key): resources: 1: nam: is an unknown field; did you mean `name`?",
            "endpoint 5 (e.key): resources: 1: kind: `GitRepo` is not a kind that flux-recv handles; did you mean `GitRepository`?",
            "endpoint 5 (e.key): resources: 2: matchLabels: has a value that is not a string; put it in quotes",
            "endpoint 5 (e.key): resources: 2: apiVersion: `v1` is not a version of Bucket; write source.toolkit.fluxcd.io/v1 or remove it",
            "endpoint 5 (e.key): resources: 3: is not a mapping; write `field: value` lines",
        ],
    );
}

#[test]
fn two_accounts_of_google_are_a_mistake() {
    let account = "{audience: https://recv.example.com, email: push@example.com}";
    check_mistakes(
        &format!(
            "fluxRecvVersion: 1\nendpoints:\n\
             - {{source: GoogleContainerRegistry, keyPath: a.key, gcr: {account}, pubsub: {account}}}\n"
        ),
        &["a.key"],
        &["endpoint 1 (a.key): pubsub: does not go with `gcr`; keep the one that belongs to the source"],
    );
}

#[test]
fn what_was_empty_and_meant_nothing_still_does() {
    let folder = folder(&["a.key"]);
    let with = good(
        "fluxRecvVersion: 1\napi: ''\nendpoints: [{source: Quay, keyPath: a.key, registryHost: ''}]\n",
        folder.path(),
    );
    let without = good("fluxRecvVersion: 1\nendpoints: [{source: Quay, keyPath: a.key}]\n", folder.path());
    let path = |config: &Config| config.endpoints.iter().next().expect("an endpoint").path();
    assert_eq!(path(&with), path(&without));
}

#[test]
fn api_has_to_be_a_web_address() {
    let folder = folder(&["a.key"]);
    let with_api = |api: &str| {
        format!("fluxRecvVersion: 1\napi: {api}\nendpoints: [{{source: Quay, keyPath: a.key}}]\n")
    };
    let config = good(&with_api("http://localhost:3030/api/flux"), folder.path());
    assert_eq!(config.api.map(String::from).as_deref(), Some("http://localhost:3030/api/flux"));
    for api in ["localhost:3030", "flux", "ftp://x/"] {
        assert!(parse(&with_api(api), folder.path()).is_err(), "{api}");
    }
}

// Incidents 16 and 42.
#[test]
fn weak_keys_and_line_breaks_are_warned_about() {
    let folder = folder(&[]);
    std::fs::write(folder.path().join("a.key"), "short\n").expect("a key");
    std::fs::write(folder.path().join("b.key"), "long enough for anyone").expect("a key");
    let text = "fluxRecvVersion: 1\nendpoints:\n- {source: Nexus, keyPath: a.key}\n- {source: BitbucketCloud, keyPath: b.key, unsigned: true}\n";
    let config = good(text, folder.path());
    let starts: Vec<String> = config
        .warnings
        .iter()
        .map(|warning| {
            warning.split(';').next().unwrap_or_default().replace(&folder.path().display().to_string(), "DIR")
        })
        .collect();
    assert_eq!(
        starts,
        [
            "endpoint a: the key in DIR/a.key has 5 bytes",
            "endpoint a: the key in DIR/a.key ends in a line break",
            "endpoint a: Nexus does not say where its registry is",
            "endpoint b: unsigned deliveries are accepted",
        ]
    );
}

proptest::proptest! {
    #[test]
    fn reading_never_panics(text in "\\PC*") {
        let _ = parse(&text, Path::new("/nonexistent"));
    }
}

#[test]
fn a_mistake_is_one_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("fluxrecv.yaml");
    let mistakes = |text: &str| {
        std::fs::write(&file, text).expect("a file");
        load(&file).err().expect("mistakes").to_string()
    };
    let plain = mistakes("fluxRecvVersion: {a: 1, b: 2}\nendpoints: 7\n");
    assert!(plain.lines().all(|line| line.contains("fluxrecv.yaml: ")), "{plain}");
    assert!(plain.lines().count() > 1);
    let shown = mistakes("fluxRecvVersion: 1\nendpoints: [{source: GitHub, keyPath: x, filter: 'tru'}]\n");
    let lines: Vec<&str> = shown.lines().filter(|line| !line.contains("fluxrecv.yaml: ")).collect();
    assert_eq!(lines, ["    | tru", "    | ^"], "{shown}");
}

#[test]
fn git_hosts_are_hosts_without_ports_and_belong_to_git() {
    let folder = folder(&["a.key"]);
    let one = |entry: &str| format!("fluxRecvVersion: 1\nendpoints: [{entry}]\n");
    let hosts = "{source: Gitea, keyPath: a.key, gitHosts: [Gitea-HTTP.gitea.svc:3000, git.example.com]}";
    let config = good(&one(hosts), folder.path());
    let endpoint = config.endpoints.iter().next().expect("an endpoint");
    assert_eq!(endpoint.git_hosts, ["gitea-http.gitea.svc", "git.example.com"]);
    check_mistakes(
        &one("{source: Gitea, keyPath: a.key, gitHosts: 'https://git.example.com'}"),
        &["a.key"],
        &[
            "endpoint 1 (a.key): gitHosts: `https://git.example.com` is not a host; write it like gitea-http.gitea.svc, without \
           scheme and path",
        ],
    );
    check_mistakes(
        &one("{source: Quay, keyPath: a.key, gitHosts: git.example.com}"),
        &["a.key"],
        &["endpoint 1 (a.key): gitHosts: has no effect, Quay sends no pushes; remove it"],
    );
}

#[test]
fn a_mistake_is_one_line_whatever_the_file_says() {
    check_mistakes(
        "fluxRecvVersion: 1\nendpoints: [{source: GitHub, keyPath: a.key, \"re\\nfs\": main}]\n",
        &["a.key"],
        &["endpoint 1 (a.key): re\\nfs: is an unknown field; did you mean `refs`?"],
    );
}

const SIGNING_KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";
const KEY_SET: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"1","alg":"EdDSA","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

/// A folder with what publishers and subscribers name.
fn fleet_folder() -> tempfile::TempDir {
    let folder = folder(&["a.key", "b.key", "c.key"]);
    for (name, content) in
        [("signing.pem", SIGNING_KEY), ("jwks.json", KEY_SET), ("ca.pem", "no certificate")]
    {
        std::fs::write(folder.path().join(name), content).expect("a file");
    }
    folder
}

#[test]
fn a_publisher_lists_who_gets_what() {
    let folder = fleet_folder();
    std::fs::create_dir(folder.path().join("subscribers")).expect("a folder");
    let file =
        "name: two\nendpoints: '*'\noidc: {issuerURL: x, audience: y, subject: z, jwksPath: jwks.json}\n";
    std::fs::write(folder.path().join("subscribers/two.yaml"), file).expect("a subscriber");
    std::fs::write(folder.path().join("subscribers/.hidden.yaml"), "no: mapping").expect("a file");
    let config = good(
        "
fluxRecvVersion: 1
endpoints:
- {source: GitHub, keyPath: a.key, forward: [req.pusher.name, headers.x-a]}
publish:
  signingKeyPaths: signing.pem
  stagger: 10s
  retention: {entries: 5, bytes: 1MiB, age: 2h}
  subscribers: [{name: one, endpoints: [a], keyPath: b.key}]
  subscribersPath: subscribers/*.yaml
",
        folder.path(),
    );
    let publish = config.publish.expect("a publisher");
    let names: Vec<&str> = publish.subscribers.iter().map(|subscriber| &*subscriber.name).collect();
    assert_eq!(names, ["one", "two"]);
    assert_eq!(publish.retention.max_age.as_secs(), 7200);
    assert_eq!((publish.retention.max_entries, publish.retention.max_bytes), (5, 1 << 20));
}

#[test]
fn mistakes_of_a_publisher_are_told_with_the_fix() {
    let folder = fleet_folder();
    let text = "
fluxRecvVersion: 1
endpoints:
- {source: GitHub, keyPath: a.key, forward: [req, pusher.name]}
publish:
  signingKeyPaths: [a.key]
  stagger: fast
  subscribers:
  - {name: one, endpoints: [githup], keyPath: b.key}
  - {name: one, endpoints: ['*', a], keyPath: c.key}
  - {name: three, keyPath: b.key, oidc: {issuerURL: x}}
  - {name: four, endpoints: [a], oidc: {issuerURL: x, audience: y, jwksPath: a.key}}
  - {name: five, endpoints: [a], keyPath: b.key}
  - {name: six, endpoints: [a]}
";
    let mistakes = parse(text, folder.path()).err().expect("mistakes");
    for expect in [
        "endpoint 1 (a.key): forward: `req` does not name a field; write it like req.pusher.name",
        "endpoint 1 (a.key): forward: `pusher.name` does not name a field",
        "publish: stagger: is not a duration; write it like 30s",
        "publish: signingKeyPaths: a.key is not an Ed25519 private key in PEM (PKCS#8); `flux-recv keygen --ed25519 FILE` makes one",
        "publish: subscriber one: endpoints: `githup` is not an endpoint of this config",
        "publish: subscribers: 2: endpoints: lists '*' beside names",
        "publish: subscribers: 3: endpoints: is missing",
        "publish: subscribers: 3: oidc: stands beside `keyPath`",
        "publish: subscribers: 4: oidc: subject: is missing; name the ServiceAccount",
        "publish: subscribers: 4: oidc: jwksPath: a.key is not a JSON Web Key Set; `kubectl get --raw /openid/v1/jwks`",
        "publish: subscriber five: keyPath: the key is that of subscriber `one`",
        "publish: subscribers: 6: keyPath: is missing; give `keyPath`, or `oidc`",
    ] {
        assert!(mistakes.iter().any(|mistake| mistake.starts_with(expect)), "{expect} in {mistakes:#?}");
    }
}

#[test]
fn mistakes_of_a_subscriber_are_told_with_the_fix() {
    let folder = fleet_folder();
    let subscribe = |fields: &str| {
        let text = format!("fluxRecvVersion: 1\nsubscribe:\n- {{name: hub, {fields}}}\n");
        parse(&text, folder.path()).err().map(|mistakes| mistakes.join("\n")).unwrap_or_default()
    };
    let key = "publicKeys: ['11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo='], tokenPath: a.key";
    assert_eq!(subscribe(&format!("url: 'https://a.example.com/flux', {key}, endpoints: {{github: }}")), "");
    assert_eq!(
        subscribe(&format!("url: 'http://[::1]:8090', {key}, endpoints: {{github: {{refs: [main]}}}}")),
        ""
    );
    for (fields, expect) in [
        (format!("url: 'http://a.example.com', {key}, endpoints: {{a: }}"), "url: has to be https"),
        (format!("url: 'https://u:p@a.example.com', {key}, endpoints: {{a: }}"), "url: has a user"),
        (format!("url: a.example.com, {key}, endpoints: {{a: }}"), "url: `a.example.com` is not a URL"),
        (
            "url: 'https://a.example.com', tokenPath: a.key, endpoints: {a: }".to_owned(),
            "publicKeys: is missing",
        ),
        (
            "url: 'https://a.example.com', tokenPath: a.key, publicKeys: abc, endpoints: {a: }".to_owned(),
            "publicKeys: `abc` is not the base64 of an Ed25519 public key",
        ),
        (format!("url: 'https://a.example.com', {key}"), "endpoints: is missing"),
        (
            format!("url: 'https://a.example.com', {key}, endpoints: {{a: {{source: GitHub}}}}"),
            "endpoints: a: source: is an unknown field",
        ),
        (
            format!("url: 'https://a.example.com', {key}, caPath: none.pem, endpoints: {{a: }}"),
            "caPath: cannot read",
        ),
    ] {
        let mistakes = subscribe(&fields);
        assert!(mistakes.contains(&format!("subscribe: 1: {expect}")), "{expect} in {mistakes}");
    }
    let both = "fluxRecvVersion: 1\nsubscribe: [{}]\npublish: {}\n";
    let mistakes = parse(both, folder.path()).err().expect("mistakes").join("\n");
    assert!(
        mistakes.contains("publish: stands beside `subscribe`; a subscriber does not publish"),
        "{mistakes}"
    );
}
