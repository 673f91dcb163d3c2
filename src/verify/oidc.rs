//! Tokens of any OpenID Connect issuer, as CI systems give them to their jobs.
//! <https://fluxcd.io/flux/components/notification/receivers/#generic-oidc>

use serde_json::Value;

use super::fetch::Trust;
use super::key_sets::KeySetSource;
use super::token_claims::{self, ExpectedClaims};
use super::{Refusal, VerifyContext, auth};
use crate::delivery::Delivery;
use crate::expression::{Budget, Expression, Variable, VariableName, Variables};

/// An issuer whose tokens an endpoint accepts, and the claims that they need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// Its identifier, which is also where its discovery document is.
    pub url: String,
    /// Who has named it.
    pub trust: Trust,
    /// Whom the token has to be for.
    pub audience: String,
    /// Values that the validations read as `vars`, each of them those before it.
    pub variables: Vec<(String, Expression)>,
    /// The condition on the claims. Public issuers give tokens to anyone, so never none.
    pub validations: Vec<Validation>,
}

/// A condition on the claims of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validation {
    /// What has to hold.
    pub condition: Expression,
    /// What to say if it does not.
    pub message: String,
}

/// The variables that variables and validations declare.
pub const TOKEN_VARIABLES: &[VariableName] = &[VariableName::Claims, VariableName::Vars];

/// Checks the bearer token against the issuer that it names; gives its claims.
pub(super) async fn check(
    delivery: &Delivery<'_>,
    issuers: &[Issuer],
    tools: &VerifyContext,
) -> Result<Value, Refusal> {
    let token = auth::credentials(delivery, "Bearer")?;
    let named = token_claims::unverified_issuer(token)
        .ok_or_else(|| Refusal::unauthenticated("the token's issuer cannot be read"))?;
    let issuer = issuers.iter().find(|issuer| issuer.url == named).ok_or_else(|| {
        Refusal::unauthenticated("the token is of an issuer that the endpoint does not list")
    })?;
    let wanted = ExpectedClaims {
        keys: KeySetSource::IssuedBy(&issuer.url, issuer.trust),
        issuers: &[&issuer.url],
        audience: &issuer.audience,
    };
    let claims = token_claims::check(token, wanted, &tools.keys).await?;
    validate(issuer, &claims)?;
    Ok(claims)
}

fn validate(issuer: &Issuer, claims: &Value) -> Result<(), Refusal> {
    let (claims, budget) = (Variable::from_json(claims), Budget::for_token());
    let mut values: Vec<(&str, Variable)> = Vec::new();
    let failed =
        |what: &str, why: String| Refusal::unauthenticated(format!("{what} cannot be evaluated: {why}"));
    for (name, expression) in &issuer.variables {
        let vars = Variable::from_fields(&values);
        let variables =
            Variables::default().with(VariableName::Claims, &claims).with(VariableName::Vars, &vars);
        let value = expression.result(&variables, &budget);
        values.push((name, value.map_err(|err| failed(&format!("the variable `{name}`"), err.to_string()))?));
    }
    let vars = Variable::from_fields(&values);
    let variables = Variables::default().with(VariableName::Claims, &claims).with(VariableName::Vars, &vars);
    let mut unmet = Vec::new();
    for Validation { condition, message } in &issuer.validations {
        let holds = condition.holds(&variables, &budget);
        if !holds.map_err(|err| failed(&format!("the validation `{message}`"), err.to_string()))? {
            unmet.push(message.as_str());
        }
    }
    match unmet.is_empty() && !issuer.validations.is_empty() {
        true => Ok(()),
        false => {
            Err(Refusal::unauthenticated(format!("the token's claims are not enough: {}", unmet.join("; "))))
        }
    }
}
