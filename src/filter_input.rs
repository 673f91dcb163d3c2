//! What expressions read of a delivery: `event`, `req`, `headers` and `claims`. Gathered only where
//! an expression reads it.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::event::{Event, GitChanges};
use crate::expression::{Budget, EvaluationError, Expression, Variable, VariableName, Variables};

/// What filters can read of a delivery beside its events; empty where there are none.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct FilterInput(Option<Box<FilterSources>>);

#[derive(Clone, Default, Serialize, Deserialize)]
struct FilterSources {
    /// What the provider calls the event.
    name: String,
    request: LazyVariable,
    headers: LazyVariable,
    claims: LazyVariable,
}

/// Something that expressions read, kept as JSON text and made readable once.
#[derive(Default, Serialize, Deserialize)]
struct LazyVariable {
    json: Option<String>,
    /// Why it cannot be read.
    missing: Option<String>,
    #[serde(skip)]
    variable: OnceLock<Variable>,
}

/// The variables that an endpoint's own filter declares.
pub const DELIVERY_VARIABLES: &[VariableName] =
    &[VariableName::Event, VariableName::Req, VariableName::Headers, VariableName::Claims];

/// The variables that a resource's filter declares.
pub const RESOURCE_VARIABLES: &[VariableName] =
    &[VariableName::Event, VariableName::Req, VariableName::Headers, VariableName::Claims, VariableName::Res];

/// A body that filters do not read, since that would take too much memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnreadableBody {
    #[error("the body has {length} bytes, filters read `req` of up to {max}")]
    TooLong { length: usize, max: usize },
    #[error("the body has more than {max} values")]
    TooManyValues { max: usize },
}

impl FilterInput {
    /// Of a delivery whose event has this name.
    pub fn named(name: String) -> FilterInput {
        FilterInput(Some(Box::new(FilterSources { name, ..FilterSources::default() })))
    }

    /// Of an event of a publisher, with the fields of each variable that it forwards.
    pub fn from_forwarded(event_type: String, forwarded: impl Fn(VariableName) -> Value) -> FilterInput {
        let variable = |name| LazyVariable::from_json(&forwarded(name));
        FilterInput(Some(Box::new(FilterSources {
            name: event_type,
            request: variable(VariableName::Req),
            headers: variable(VariableName::Headers),
            claims: variable(VariableName::Claims),
        })))
    }

    /// With the body as JSON text, or why filters cannot read it.
    pub fn with_request(self, body: Result<String, UnreadableBody>) -> FilterInput {
        let request = match body {
            Ok(json) => LazyVariable { json: Some(json), ..LazyVariable::default() },
            Err(why) => LazyVariable { missing: Some(why.to_string()), ..LazyVariable::default() },
        };
        self.with(|gathered| gathered.request = request)
    }

    /// With these headers, by their names in lower case.
    pub fn with_headers(self, headers: BTreeMap<String, String>) -> FilterInput {
        self.with(|gathered| gathered.headers = LazyVariable::from_json(&json!(headers)))
    }

    /// With the claims of the token that has proved the delivery.
    pub fn with_claims(self, claims: &Value) -> FilterInput {
        self.with(|gathered| gathered.claims = LazyVariable::from_json(claims))
    }

    /// What these conditions read, for as long as the delivery waits.
    pub fn at_rest<'e>(self, conditions: impl Iterator<Item = &'e Expression>) -> FilterInput {
        let Some(gathered) = self.0 else { return FilterInput(None) };
        let FilterSources { name, request, headers, claims } = *gathered;
        let mut kept = FilterSources { name, ..FilterSources::default() };
        let mut parts =
            [(VariableName::Req, request), (VariableName::Headers, headers), (VariableName::Claims, claims)];
        for condition in conditions {
            for (name, part) in parts.iter_mut().filter(|(name, _)| condition.names(*name)) {
                let at = match *name {
                    VariableName::Req => &mut kept.request,
                    VariableName::Headers => &mut kept.headers,
                    _ => &mut kept.claims,
                };
                if at.json.is_none() && at.missing.is_none() {
                    *at = LazyVariable { variable: OnceLock::new(), ..std::mem::take(part) };
                }
            }
        }
        FilterInput(Some(Box::new(kept)))
    }

    /// How much of it has to be kept, in bytes.
    pub fn size(&self) -> usize {
        let parts = |gathered: &FilterSources| {
            let parts = [&gathered.request, &gathered.headers, &gathered.claims];
            parts.iter().filter_map(|part| part.json.as_ref()).map(String::len).sum()
        };
        self.0.as_deref().map_or(0, parts)
    }

    fn with(self, change: impl FnOnce(&mut FilterSources)) -> FilterInput {
        let mut gathered = self.0.unwrap_or_default();
        change(&mut gathered);
        FilterInput(Some(gathered))
    }

    /// Whether the condition holds of an event, and of an object if it is about one. Charges the budget
    /// of this condition.
    ///
    /// # Errors
    /// When it fails, which counts as if it did not hold.
    pub fn hold(
        &self,
        condition: &Expression,
        event: &Variable,
        res: Option<&Variable>,
        budget: &Budget,
    ) -> Result<bool, EvaluationError> {
        let gathered =
            self.0.as_deref().ok_or_else(|| EvaluationError::because("nothing is known of the delivery"))?;
        let parts = [
            (VariableName::Req, &gathered.request),
            (VariableName::Headers, &gathered.headers),
            (VariableName::Claims, &gathered.claims),
        ];
        let mut variables = Variables::default().with(VariableName::Event, event);
        for (name, part) in parts.into_iter().filter(|(name, _)| condition.names(*name)) {
            variables = variables.with(name, part.read()?);
        }
        match res {
            Some(res) => variables = variables.with(VariableName::Res, res),
            None if condition.names(VariableName::Res) => {
                return Err(EvaluationError::because("the fields of the object are not known"));
            }
            None => {}
        }
        condition.holds(&variables, budget)
    }

    /// An event in the form that expressions read.
    pub fn event_variable(&self, event: &Event) -> Variable {
        Variable::from_json(&self.normal_form(event))
    }

    /// The same as JSON, for people.
    pub fn normal_form(&self, event: &Event) -> Value {
        let name = self.0.as_deref().map(|gathered| gathered.name.as_str());
        in_normal_form(event, name.unwrap_or_default())
    }

    /// What is known of a variable of the delivery, for people.
    pub fn json_of(&self, variable: VariableName) -> Option<Value> {
        let gathered = self.0.as_deref()?;
        let lazy = match variable {
            VariableName::Req => &gathered.request,
            VariableName::Headers => &gathered.headers,
            VariableName::Claims => &gathered.claims,
            _ => return None,
        };
        serde_json::from_str(lazy.json.as_deref()?).ok()
    }
}

/// A copy is made readable again when it is read.
impl Clone for LazyVariable {
    fn clone(&self) -> LazyVariable {
        let LazyVariable { json, missing, .. } = self;
        LazyVariable { json: json.clone(), missing: missing.clone(), variable: OnceLock::new() }
    }
}

impl LazyVariable {
    fn from_json(json: &Value) -> LazyVariable {
        LazyVariable { json: Some(json.to_string()), ..LazyVariable::default() }
    }

    fn read(&self) -> Result<&Variable, EvaluationError> {
        match &self.missing {
            Some(why) => Err(EvaluationError::because(why)),
            None => Ok(self.variable.get_or_init(|| {
                let json = self.json.as_deref().and_then(|json| serde_json::from_str(json).ok());
                Variable::from_json(&json.unwrap_or_else(|| json!({})))
            })),
        }
    }
}

/// The normal form: every kind has `type` and `name`, and each kind fields of its own. What is not
/// there is an empty text, so that filters need no `has`.
fn in_normal_form(event: &Event, name: &str) -> Value {
    match event {
        Event::Git(git) => {
            let urls: Vec<String> = git.repository.iter().map(|url| url.short()).collect();
            let refs: Vec<Value> = match &git.changes {
                GitChanges::Unknown => Vec::new(),
                GitChanges::Refs(refs) => refs
                    .iter()
                    .map(|change| {
                        json!({
                            "name": change.name.as_str(),
                            "branch": change.name.as_branch().unwrap_or_default(),
                            "tag": change.name.as_tag().unwrap_or_default(),
                            "head": change.head.as_deref().unwrap_or_default(),
                            "deleted": change.deleted,
                        })
                    })
                    .collect(),
            };
            json!({"type": "git", "name": name, "repository": urls.first(), "urls": urls, "refs": refs})
        }
        Event::Image(image) => {
            let names: Vec<String> = image.names.iter().map(ToString::to_string).collect();
            json!({
                "type": "image", "name": name, "image": names.first(), "images": names,
                "tags": image.tags, "digest": image.digest.as_deref().unwrap_or_default(), "deleted": image.deleted,
            })
        }
        Event::Chart(chart) => json!({"type": "chart", "name": name, "repository": chart.url_tail.join("/")}),
        Event::Bucket(bucket) => {
            json!({"type": "bucket", "name": name, "bucket": bucket.name, "endpoint": bucket.endpoint.as_deref().unwrap_or_default(), "keys": bucket.keys})
        }
        Event::Anything { what } => json!({"type": "anything", "name": name, "what": what}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::BucketEvent;
    use crate::event::BucketService;

    #[test]
    fn what_cannot_be_read_is_told_to_those_who_ask() {
        let input = FilterInput::named("s3:Put".to_owned())
            .with_request(Err(UnreadableBody::TooManyValues { max: 1 }));
        let event = input.event_variable(&Event::Bucket(BucketEvent {
            name: "flux".to_owned(),
            service: BucketService::Aws,
            endpoint: None,
            keys: vec!["a/b".to_owned()],
        }));
        let hold = |text: &str| {
            let condition = Expression::condition(text, DELIVERY_VARIABLES).expect("a condition");
            input.hold(&condition, &event, None, &Budget::default()).map_err(|err| err.to_string())
        };
        assert_eq!(hold("event.name == 's3:Put' && event.keys.exists(key, key.startsWith('a/'))"), Ok(true));
        assert_eq!(hold("req.x == 1"), Err("the body has more than 1 values".to_owned()));
        assert_eq!(hold("size(headers) == 0 && size(claims) == 0"), Ok(true));
    }

    #[test]
    fn facts_survive_being_written_down() {
        let input = FilterInput::named("push".to_owned()).with_request(Ok(json!({"ref": "x"}).to_string()));
        let written = serde_json::to_string(&input).expect("JSON");
        let read: FilterInput = serde_json::from_str(&written).expect("input");
        let condition = Expression::condition("req.ref == 'x' && event.name == 'push'", DELIVERY_VARIABLES)
            .expect("a condition");
        let event = read.event_variable(&Event::Anything { what: "a delivery".to_owned() });
        assert_eq!(read.hold(&condition, &event, None, &Budget::default()), Ok(true));
    }
}
