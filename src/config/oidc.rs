//! `oidc` of an endpoint: the issuers whose tokens are accepted, and the claims that they need.

use serde_yaml::Value;

use super::section::Section;
use crate::expression::Expression;
use crate::verify::fetch::Trust;
use crate::verify::oidc::{Issuer, TOKEN_VARIABLES, Validation};

/// The issuers that are good; each needs an audience and at least one check of its claims.
pub(super) fn issuers(entry: &mut Section<'_>, listed: Option<Vec<Value>>) -> Vec<Issuer> {
    let Some(listed) = listed else {
        entry.mistake(
            "oidc",
            "is missing; list at least one issuer with `issuerURL`, `audience` and `claims` or `validations`",
        );
        return Vec::new();
    };
    let mut issuers: Vec<Issuer> = Vec::new();
    for (at, value) in listed.into_iter().enumerate() {
        let Some(issuer) = issuer(entry, at + 1, value) else { continue };
        if issuers.iter().any(|other| other.url == issuer.url) {
            entry.mistake("oidc", &format!("lists `{}` twice; put both together", issuer.url));
        }
        issuers.push(issuer);
    }
    issuers
}

fn issuer(entry: &mut Section<'_>, number: usize, value: Value) -> Option<Issuer> {
    let mut fields = entry.within(&format!("oidc: {number}"), value)?;
    let url = fields.required_text("issuerURL");
    let audience = fields.required_text("audience");
    let claims = claims(&mut fields);
    let variables = fields.list("variables").unwrap_or_default();
    let validations = fields.list("validations").unwrap_or_default();
    fields.finish();
    if let Some(url) =
        url.as_deref().filter(|url| !url.starts_with("https://") && !url.starts_with("http://"))
    {
        fields.mistake("issuerURL", &format!("`{url}` is not an http(s) URL"));
    }
    if claims.is_empty() && validations.is_empty() {
        fields.mistake(
            "claims",
            "is missing; say what the token has to claim (`claims: {repository: org/app}`), since public issuers give \
             tokens to anyone",
        );
    }
    let variables: Vec<_> = variables
        .into_iter()
        .enumerate()
        .filter_map(|(at, value)| variable(&mut fields, at + 1, value))
        .collect();
    let mut all: Vec<Validation> = claims;
    all.extend(
        validations.into_iter().enumerate().filter_map(|(at, value)| validation(&mut fields, at + 1, value)),
    );
    Some(Issuer { url: url?, trust: Trust::Operator, audience: audience?, variables, validations: all })
}

/// `claims: {name: value}`: what has to be equal.
fn claims(fields: &mut Section<'_>) -> Vec<Validation> {
    let mut validations = Vec::new();
    match fields.take("claims") {
        None => {}
        Some(Value::Mapping(written)) => {
            for (name, value) in written {
                let quoted = |text: &str| serde_json::Value::from(text).to_string();
                let (name, value) = match (name, value) {
                    (Value::String(name), Value::String(value)) => (name, quoted(&value)),
                    (Value::String(name), Value::Bool(value)) => (name, value.to_string()),
                    // Numbers of tokens are doubles to expressions.
                    (Value::String(name), Value::Number(value)) => (name, format!("double({value})")),
                    _ => {
                        fields.mistake("claims", "has a value that is not a string, a number, true or false");
                        continue;
                    }
                };
                let condition = format!("claims[{}] == {value}", quoted(&name));
                match Expression::condition(&condition, TOKEN_VARIABLES) {
                    Ok(condition) => {
                        let message = format!("the claim `{name}` is another than `{value}`");
                        validations.push(Validation { condition, message });
                    }
                    Err(err) => fields.mistake("claims", &err.to_string()),
                }
            }
        }
        Some(_) => fields.mistake("claims", "is not a mapping; write `claim: value` lines"),
    }
    validations
}

fn variable(fields: &mut Section<'_>, number: usize, value: Value) -> Option<(String, Expression)> {
    let mut variable = fields.within(&format!("variables: {number}"), value)?;
    let name = variable.required_text("name");
    let text = variable.required_text("expression");
    variable.finish();
    let read = Expression::value(&text?, TOKEN_VARIABLES);
    Some((name?, read.map_err(|err| variable.mistake("expression", &err.to_string())).ok()?))
}

fn validation(fields: &mut Section<'_>, number: usize, value: Value) -> Option<Validation> {
    let mut validation = fields.within(&format!("validations: {number}"), value)?;
    let text = validation.required_text("expression");
    let message = validation.required_text("message");
    validation.finish();
    let read = Expression::condition(&text?, TOKEN_VARIABLES);
    let condition = read.map_err(|err| validation.mistake("expression", &err.to_string())).ok()?;
    Some(Validation { condition, message: message? })
}
