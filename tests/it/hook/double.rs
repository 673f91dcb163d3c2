//! A small double of providers' APIs for webhooks: it holds webhooks, pages its lists, insists on method, token
//! and form, and answers with errors where a test wants one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, mpsc};

use actix_web::http::StatusCode;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use serde_json::{Value, json};

/// The API of one provider, as far as webhooks go.
pub struct Flavour {
    pub source: &'static str,
    /// The path of the API at a host of one's own.
    pub api_path: &'static str,
    pub token_variable: &'static str,
    /// The header that the token is expected in, and its value.
    pub authorization: (&'static str, &'static str),
    /// The method that changes a webhook; `POST` where it is replaced.
    pub update: &'static str,
    /// The field of the items of a page.
    pub items: Option<&'static str>,
    pub identifier: &'static str,
    /// Where a webhook has its URL.
    pub url: &'static str,
    /// The paths of the lists of a repository, an organization and the instance.
    pub lists: [Option<&'static str>; 3],
    /// Fields that a form has to have, as JSON pointers with their values.
    pub form: &'static [(&'static str, &'static str)],
}

pub const TOKEN: &str = "token-number-one-for-tests";

pub const FLAVOURS: &[Flavour] = &[
    Flavour {
        source: "GitHub",
        api_path: "/api/v3",
        token_variable: "GITHUB_TOKEN",
        authorization: ("authorization", "Bearer token-number-one-for-tests"),
        update: "PATCH",
        items: None,
        identifier: "id",
        url: "/config/url",
        lists: [Some("/repos/org/app/hooks"), Some("/orgs/org/hooks"), None],
        form: &[
            ("/name", "\"web\""),
            ("/active", "true"),
            ("/events", "[\"package\",\"push\"]"),
            ("/config/content_type", "\"json\""),
            ("/config/insecure_ssl", "\"0\""),
            ("/config/secret", "\"test-key-number-one-for-own\""),
        ],
    },
    Flavour {
        source: "GitLab",
        api_path: "/api/v4",
        token_variable: "GITLAB_TOKEN",
        authorization: ("private-token", TOKEN),
        update: "PUT",
        items: None,
        identifier: "id",
        url: "/url",
        lists: [Some("/projects/org%2Fapp/hooks"), Some("/groups/org/hooks"), Some("/hooks")],
        form: &[
            ("/push_events", "true"),
            ("/tag_push_events", "true"),
            ("/enable_ssl_verification", "true"),
            ("/token", "\"test-key-number-one-for-own\""),
        ],
    },
    Flavour {
        source: "Gitea",
        api_path: "/api/v1",
        token_variable: "GITEA_TOKEN",
        authorization: ("authorization", "token token-number-one-for-tests"),
        update: "POST",
        items: None,
        identifier: "id",
        url: "/config/url",
        lists: [Some("/repos/org/app/hooks"), Some("/orgs/org/hooks"), Some("/admin/hooks")],
        form: &[
            ("/type", "\"gitea\""),
            ("/active", "true"),
            ("/branch_filter", "\"*\""),
            ("/config/content_type", "\"json\""),
            ("/config/secret", "\"test-key-number-one-for-own\""),
        ],
    },
    Flavour {
        source: "Forgejo",
        api_path: "/api/v1",
        token_variable: "FORGEJO_TOKEN",
        authorization: ("authorization", "token token-number-one-for-tests"),
        update: "POST",
        items: None,
        identifier: "id",
        url: "/config/url",
        lists: [Some("/repos/org/app/hooks"), Some("/orgs/org/hooks"), Some("/admin/hooks")],
        form: &[
            ("/type", "\"forgejo\""),
            ("/config/content_type", "\"json\""),
            ("/config/secret", "\"test-key-number-one-for-own\""),
        ],
    },
    Flavour {
        source: "BitbucketCloud",
        api_path: "/2.0",
        token_variable: "BITBUCKET_TOKEN",
        authorization: ("authorization", "Bearer token-number-one-for-tests"),
        update: "PUT",
        items: Some("values"),
        identifier: "uuid",
        url: "/url",
        lists: [Some("/repositories/org/app/hooks"), Some("/workspaces/org/hooks"), None],
        form: &[
            ("/description", "\"flux-recv\""),
            ("/active", "true"),
            ("/events", "[\"repo:push\"]"),
            ("/skip_cert_verification", "false"),
            ("/secret", "\"test-key-number-one-for-own\""),
        ],
    },
];

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Recorded {
    pub method: String,
    pub path: String,
    pub body: Value,
}

/// An answer instead of the usual one.
pub struct ErrorAnswer {
    /// The method that it answers.
    pub method: &'static str,
    pub status: u16,
    pub headers: &'static [(&'static str, &'static str)],
    pub body: String,
}

#[derive(Default)]
struct State {
    /// The list that a webhook belongs to, and the webhook.
    webhooks: Vec<(String, Value)>,
    /// Past deliveries of all webhooks, the newest first.
    deliveries: Vec<Value>,
    /// The identifier of the delivery that a test made.
    tests: u32,
    /// What the endpoint answers to a test.
    test_code: Option<u16>,
    requests: Vec<Recorded>,
    errors: VecDeque<ErrorAnswer>,
    next_identifier: u32,
}

pub struct Double {
    pub flavour: &'static Flavour,
    /// The URL of the host.
    pub url: String,
    state: Arc<Mutex<State>>,
}

/// Items of a page: few, so that lists have many pages.
const PAGE: usize = 2;

impl Double {
    pub fn start(source: &str) -> Double {
        let flavour = FLAVOURS.iter().find(|flavour| flavour.source == source).expect("a flavour");
        let state = Arc::new(Mutex::new(State { next_identifier: 100, ..State::default() }));
        let data = web::Data::from(Arc::new((flavour, Arc::clone(&state))));
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let app = move || App::new().app_data(data.clone()).default_service(web::to(answer));
                let server = HttpServer::new(app).workers(1).disable_signals().bind("127.0.0.1:0");
                let server = server.expect("a port");
                tell.send(server.addrs()[0]).expect("the test waits");
                server.run().await.expect("the double serves");
            });
        });
        Double { flavour, url: format!("http://{}", told.recv().expect("an address")), state }
    }

    /// Adds a webhook that posts to this URL.
    pub fn add(&self, list: &str, url: &str) -> String {
        let mut webhook = json!({"active": true, "events": ["push"], "config": {}});
        set(&mut webhook, self.flavour.url, json!(url));
        self.add_webhook(list, webhook)
    }

    pub fn add_webhook(&self, list: &str, mut webhook: Value) -> String {
        let mut state = self.state.lock().expect("a lock");
        let identifier = new_identifier(&mut state, self.flavour);
        webhook[self.flavour.identifier] = identifier.clone();
        state.webhooks.push((list.to_owned(), webhook));
        identifier.as_str().map_or_else(|| identifier.to_string(), str::to_owned)
    }

    pub fn set_deliveries(&self, deliveries: Vec<Value>) {
        self.state.lock().expect("a lock").deliveries = deliveries;
    }

    pub fn answer_tests_with(&self, code: u16) {
        self.state.lock().expect("a lock").test_code = Some(code);
    }

    pub fn fail_next(&self, error: ErrorAnswer) {
        self.state.lock().expect("a lock").errors.push_back(error);
    }

    /// The URLs of the webhooks of a list.
    pub fn webhooks(&self, list: &str) -> Vec<Value> {
        let state = self.state.lock().expect("a lock");
        state.webhooks.iter().filter(|(of, _)| of == list).map(|(_, webhook)| webhook.clone()).collect()
    }

    pub fn urls(&self, list: &str) -> Vec<String> {
        let url =
            |webhook: &Value| webhook.pointer(self.flavour.url).and_then(Value::as_str).map(str::to_owned);
        self.webhooks(list).iter().filter_map(url).collect()
    }

    /// The requests of a method since the last look.
    pub fn take_requests(&self, method: &str) -> Vec<Recorded> {
        let mut requests = std::mem::take(&mut self.state.lock().expect("a lock").requests);
        requests.retain(|request| request.method == method);
        requests
    }
}

fn new_identifier(state: &mut State, flavour: &Flavour) -> Value {
    state.next_identifier += 1;
    match flavour.identifier {
        "uuid" => json!(format!("{{{}}}", state.next_identifier)),
        _ => json!(state.next_identifier),
    }
}

fn set(value: &mut Value, pointer: &str, to: Value) {
    let mut at = value;
    for field in pointer.split('/').skip(1) {
        at = &mut at[field];
    }
    *at = to;
}

type Shared = (&'static Flavour, Arc<Mutex<State>>);

async fn answer(request: HttpRequest, body: web::Bytes, shared: web::Data<Shared>) -> HttpResponse {
    let (flavour, state) = &**shared;
    let mut state = state.lock().expect("a lock");
    let method = request.method().to_string();
    let full = request.uri().path().to_owned();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    state.requests.push(Recorded { method: method.clone(), path: full.clone(), body: body.clone() });
    if state.errors.front().is_some_and(|error| error.method == method)
        && let Some(ErrorAnswer { status, headers, body, .. }) = state.errors.pop_front()
    {
        let mut response = HttpResponse::build(StatusCode::from_u16(status).expect("a status"));
        for (name, value) in headers {
            response.insert_header((*name, *value));
        }
        return response.body(body);
    }
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let (name, value) = flavour.authorization;
    if header(name) != Some(value) {
        return HttpResponse::Unauthorized().json(json!({"message": "Bad credentials"}));
    }
    let is_named = header("user-agent").is_some_and(|agent| agent.starts_with("flux-recv/"));
    let Some(path) = full.strip_prefix(flavour.api_path).filter(|_| is_named) else {
        return HttpResponse::Forbidden().json(json!({"message": "no such API, or no User-Agent"}));
    };
    let query = |name: &str| {
        let pairs = request.query_string().split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(found, _)| *found == name).map(|(_, value)| value.to_owned())
    };
    let list =
        flavour.lists.iter().flatten().find(|list| {
            path.strip_prefix(**list).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
    let Some(list) = list else { return HttpResponse::NotFound().json(json!({"message": "Not Found"})) };
    let rest = &path[list.len()..];
    let segments: Vec<String> =
        rest.split('/').skip(1).map(|segment| segment.replace("%7B", "{").replace("%7D", "}")).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let position = segments.first().and_then(|identifier| {
        state.webhooks.iter().position(|(of, webhook)| {
            let own = &webhook[flavour.identifier];
            of == list && own.as_str().map_or_else(|| own.to_string(), str::to_owned) == **identifier
        })
    });
    match (method.as_str(), segments.as_slice()) {
        ("GET", []) => {
            let page: usize = query("page").and_then(|page| page.parse().ok()).unwrap_or(1);
            let all: Vec<Value> = state
                .webhooks
                .iter()
                .filter(|(of, _)| of == list)
                .map(|(_, webhook)| webhook.clone())
                .collect();
            let items: Vec<Value> = all.iter().skip((page - 1) * PAGE).take(PAGE).cloned().collect();
            match flavour.items {
                Some(field) => {
                    let mut answer = json!({field: items});
                    if all.len() > page * PAGE {
                        answer["next"] = json!("https://elsewhere.example.com/never-followed");
                    }
                    HttpResponse::Ok().json(answer)
                }
                None => HttpResponse::Ok().json(items),
            }
        }
        ("POST", []) => {
            if let Some(missing) = lacks(flavour, &body) {
                return HttpResponse::UnprocessableEntity().json(json!({"message": missing}));
            }
            let mut webhook = body;
            webhook[flavour.identifier] = new_identifier(&mut state, flavour);
            hide_secrets(&mut webhook);
            state.webhooks.push(((*list).to_owned(), webhook.clone()));
            HttpResponse::Created().json(webhook)
        }
        (_, [_, ..]) if position.is_none() => HttpResponse::NotFound().json(json!({"message": "Not Found"})),
        ("DELETE", [_]) => {
            state.webhooks.remove(position.expect("a webhook"));
            HttpResponse::NoContent().finish()
        }
        (update, [_]) if update == flavour.update => {
            if let Some(missing) = lacks(flavour, &body) {
                return HttpResponse::UnprocessableEntity().json(json!({"message": missing}));
            }
            let (_, webhook) = &mut state.webhooks[position.expect("a webhook")];
            for (field, value) in body.as_object().into_iter().flatten() {
                webhook[field] = value.clone();
            }
            hide_secrets(webhook);
            HttpResponse::Ok().json(webhook.clone())
        }
        ("POST", [_, "pings"]) | ("POST", [_, "test", "push_events"]) | ("POST", [_, "tests"]) => {
            state.tests += 1;
            let code = state.test_code.unwrap_or(200);
            let mut made = delivery(flavour, state.tests, code, "2026-01-02T03:04:05Z");
            if flavour.source == "GitHub" {
                made["event"] = json!("ping");
            }
            state.deliveries.insert(0, made);
            match (flavour.source, code) {
                // GitLab tells of a failed answer as if the request were wrong.
                ("GitLab", 400..) => {
                    HttpResponse::UnprocessableEntity().json(json!({"message": "Test failed"}))
                }
                _ => HttpResponse::Created().json(json!({"message": "201 Created"})),
            }
        }
        ("GET", [_, "events"])
            if query("per_page").is_none_or(|size| size.parse::<u32>().is_ok_and(|size| size > 20)) =>
        {
            HttpResponse::BadRequest().json(json!({"error": "per_page does not have a valid value"}))
        }
        ("GET", [_, "deliveries" | "events"]) => {
            let start = match query("cursor").or(query("page")) {
                Some(at) if segments[1] == "deliveries" => at.trim_start_matches('c').parse().unwrap_or(0),
                Some(page) => (page.parse::<usize>().unwrap_or(1) - 1) * PAGE,
                None => 0,
            };
            let items: Vec<Value> = state.deliveries.iter().skip(start).take(PAGE).cloned().collect();
            let mut response = HttpResponse::Ok();
            if segments[1] == "deliveries" && state.deliveries.len() > start + PAGE {
                let next =
                    format!("<https://elsewhere.example.com/x?cursor=c{}>; rel=\"next\"", start + PAGE);
                response.insert_header(("Link", next));
            }
            response.json(items)
        }
        ("POST", [_, "deliveries", _, "attempts"] | [_, "events", _, "resend"]) => {
            HttpResponse::Accepted().json(json!({"response_status": 200}))
        }
        _ => HttpResponse::MethodNotAllowed().json(json!({"message": "Method Not Allowed"})),
    }
}

/// A past delivery as the provider writes it.
pub fn delivery(flavour: &Flavour, number: u32, code: u16, at: &str) -> Value {
    match flavour.source {
        "GitHub" => json!({
            "id": number, "guid": format!("guid-{number}"), "event": "push", "delivered_at": at,
            "status_code": code, "redelivery": false,
        }),
        _ => json!({
            "id": number, "trigger": "push_hooks", "created_at": at, "response_status": code.to_string(),
            "request_headers": {"Idempotency-Key": format!("guid-{number}")},
        }),
    }
}

/// The first field that a form lacks.
fn lacks(flavour: &Flavour, form: &Value) -> Option<String> {
    if form.pointer(flavour.url).and_then(Value::as_str).is_none_or(str::is_empty) {
        return Some(format!("{} is missing", flavour.url));
    }
    let wrong = flavour.form.iter().find(|(pointer, value)| {
        // Events that were there before stay, in any order.
        let expected: Value = serde_json::from_str(value).expect("JSON");
        match (form.pointer(pointer), &expected) {
            (Some(Value::Array(events)), Value::Array(needed)) => {
                !needed.iter().all(|event| events.contains(event))
            }
            (found, expected) => found != Some(expected),
        }
    });
    wrong.map(|(pointer, _)| format!("{pointer} is not what it should be"))
}

/// What a provider never shows again.
fn hide_secrets(webhook: &mut Value) {
    for (pointer, hidden) in
        [("/config/secret", json!("********")), ("/token", Value::Null), ("/secret", Value::Null)]
    {
        if let Some(secret) = webhook.pointer_mut(pointer) {
            *secret = hidden;
        }
    }
}
