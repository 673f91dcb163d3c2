//! Tokens of CI systems, made here with a labelled key.

use serde_json::{Value, json};

use super::google::{InProcess, header, now, serve, token};
use super::running::{OBJECTS, client};
use super::web::{Web, with};

const GITHUB: &str = "https://token.actions.githubusercontent.com";
const GITLAB: &str = "https://gitlab.com";

/// The recipes of README, for GitHub Actions and GitLab CI.
const CONFIG: &str = "
fluxRecvVersion: 1
endpoints:
- source: generic-oidc
  keyPath: actions.key
  oidc:
  - issuerURL: https://token.actions.githubusercontent.com
    audience: flux-recv
    claims:
      repository: example-org/app
      ref: refs/heads/main
  - issuerURL: https://gitlab.com
    audience: flux-recv
    variables:
    - name: protected
      expression: claims.ref_protected == 'true'
    validations:
    - expression: claims.project_path.startsWith('example-org/')
      message: the project is not one of example-org
    - expression: vars.protected && claims.ref_type == 'branch'
      message: the branch is not protected
  resources:
  - kind: GitRepository
    name: app
    namespace: apps
    filter: claims.?repository.orValue('example-org/app') == 'example-org/app'
";

fn actions() -> Value {
    json!({
        "iss": GITHUB, "aud": "flux-recv", "sub": "repo:example-org/app:ref:refs/heads/main", "iat": now(), "exp": now() + 300,
        "repository": "example-org/app", "repository_owner": "example-org", "ref": "refs/heads/main", "event_name": "push",
    })
}

fn gitlab() -> Value {
    json!({
        "iss": GITLAB, "aud": "flux-recv", "sub": "project_path:example-org/app", "iat": now(), "exp": now() + 300,
        "project_path": "example-org/app", "ref": "main", "ref_type": "branch", "ref_protected": "true",
    })
}

async fn post(receiver: &InProcess, claims: &Value) -> (u16, String) {
    post_token(receiver, &format!("Bearer {}", token(&header(), claims))).await
}

async fn post_token(receiver: &InProcess, authorization: &str) -> (u16, String) {
    let path = receiver.service.registry.get().endpoints.named("actions").expect("the endpoint").path();
    let request = client().post(format!("{}{path}", receiver.base)).header("Authorization", authorization);
    let response = request.body("").send().await.expect("an answer");
    (response.status().as_u16(), response.text().await.expect("a body"))
}

fn web() -> Web {
    Web::default().with_issuer(GITHUB).with_issuer(GITLAB)
}

// Incident 15.
#[tokio::test]
async fn jobs_of_both_systems_are_accepted_if_their_claims_are_the_expected_ones() {
    let web = web().put_up();
    let receiver = serve(CONFIG, OBJECTS, web.clone()).await;
    for good in [actions(), gitlab(), with(actions(), "aud", json!(["other", "flux-recv"]))] {
        let (status, answer) = post(&receiver, &good).await;
        assert_eq!(status, 202, "{good}: {answer}");
        assert!(answer.contains("GitRepository/apps/app"), "{answer}");
    }
    // The clocks may be a minute apart.
    assert_eq!(post(&receiver, &with(actions(), "exp", json!(now() - 30))).await.0, 202);
    for bad in [
        with(actions(), "repository", json!("example-org/other")),
        with(actions(), "repository", Value::Null),
        with(actions(), "ref", json!("refs/heads/feature")),
        with(actions(), "aud", json!("notification-controller")),
        with(actions(), "aud", Value::Null),
        with(actions(), "exp", json!(now() - 3600)),
        with(actions(), "exp", Value::Null),
        with(actions(), "nbf", json!(now() + 3600)),
        with(actions(), "iss", json!(format!("{GITHUB}/"))),
        with(actions(), "iss", json!("https://token.evil.example")),
        with(actions(), "iss", Value::Null),
        with(gitlab(), "project_path", json!("evil-org/app")),
        with(gitlab(), "project_path", json!(7)),
        with(gitlab(), "ref_protected", json!("false")),
        with(gitlab(), "ref_type", json!("tag")),
        // What the one issuer claims is nothing to the other's conditions.
        with(actions(), "iss", json!(GITLAB)),
    ] {
        assert_eq!(post(&receiver, &bad).await, (401, String::new()), "{bad}");
    }
    let fetched = web.fetched.lock().expect("a list").clone();
    assert_eq!(fetched.len(), 4, "a document and a key set for each issuer, once: {fetched:?}");
}

// Incident 15.
#[tokio::test]
async fn tokens_that_only_look_like_some_are_refused() {
    let receiver = serve(CONFIG, OBJECTS, web().put_up()).await;
    let good = token(&header(), &actions());
    assert_eq!(post_token(&receiver, &format!("Bearer {good}")).await.0, 202);
    let (message, signature) = good.rsplit_once('.').expect("three parts");
    let (head, body) = message.split_once('.').expect("two parts");
    let algorithm = |name: &str| token(&json!({"alg": name, "kid": "test-1"}), &actions());
    for bad in [
        format!("Bearer {message}."),
        format!("Bearer {head}.{body}.{}", &signature[1..]),
        format!("Bearer {head}.{}.{signature}", &body[1..]),
        format!("Basic {good}"),
        "Bearer".to_owned(),
        "Bearer x".to_owned(),
        format!("Bearer {}", algorithm("HS256")),
        format!("Bearer {}", algorithm("ES256")),
        format!("Bearer {}", algorithm("PS256")),
        format!("Bearer {}", token(&json!({"alg": "RS256", "kid": "made-up"}), &actions())),
    ] {
        assert_eq!(post_token(&receiver, &bad).await.0, 401, "{bad}");
    }
}

// Incident 15.
#[tokio::test]
async fn tokens_of_an_issuer_that_is_out_of_reach_or_lies_are_refused() {
    let document = format!("{GITHUB}/.well-known/openid-configuration");
    let keys = format!("{GITHUB}/keys");
    for web in [
        Web::default(),
        Web::default().with(&document, "no JSON"),
        Web::default()
            .with(&document, json!({"issuer": "https://evil.example", "jwks_uri": keys}).to_string()),
        Web::default()
            .with(&document, json!({"issuer": GITHUB, "jwks_uri": "http://plain.example/keys"}).to_string()),
        Web::default().with(&document, json!({"issuer": GITHUB, "jwks_uri": keys}).to_string()),
    ] {
        let receiver = serve(CONFIG, OBJECTS, web.put_up()).await;
        let (status, answer) = post(&receiver, &actions()).await;
        assert_eq!(status, 503);
        assert_eq!(answer, "{\"outcome\":\"unavailable\",\"reason\":\"cannot be checked now\"}");
    }
}
