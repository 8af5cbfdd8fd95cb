//! The OpenAPI document: what is the same for all routes is said once, here.

use serde_json::{Value, json};
use utoipa::OpenApi;

use super::problem;
use crate::name::AccountName;

/// What a name looks like.
const NAME: &str = "^[a-z0-9][a-z0-9-]{0,31}$";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "innkeeper",
        description = "Workspaces, accounts, sessions and the gateway itself. Every refusal is application/problem+json with a stable `code`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    components(schemas(problem::Wire, problem::Code))
)]
struct Frame;

/// What the name of a variable looks like. Some that look so are refused: those that change which code runs.
const VARIABLE: &str = "^[A-Za-z_][A-Za-z0-9_]{0,127}$";

/// What the routes are put into.
pub(super) fn frame() -> utoipa::openapi::OpenApi {
    Frame::openapi()
}

/// The whole document: `admin` opens every route, and every route may refuse.
pub(super) fn finished(document: &utoipa::openapi::OpenApi) -> Value {
    let mut document = serde_json::to_value(document).unwrap_or_default();
    document["components"]["securitySchemes"] = json!({
        "token": { "type": "http", "scheme": "bearer", "description": "A token of `innkeeper token create`, with one of the scopes that are listed." }
    });
    let refused = json!({
        "description": "refused",
        "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } }
    });
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    for operation in paths.flat_map(|(_, item)| item.as_object_mut().into_iter().flatten()).map(|(_, operation)| operation) {
        // Each answer must be described, and what most of them are the route has said.
        let summary = operation["summary"].as_str().unwrap_or("done").to_owned();
        for (_, answer) in operation["responses"].as_object_mut().into_iter().flatten() {
            if answer["description"].as_str().is_none_or(str::is_empty) {
                answer["description"] = summary.as_str().into();
            }
        }
        operation["responses"]["default"] = refused.clone();
        for parameter in operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
            narrow(parameter);
        }
        let admin = json!({ "token": ["admin"] });
        match operation["security"].as_array_mut() {
            Some(ways) if ways.contains(&admin) => {}
            Some(ways) => ways.insert(0, admin),
            None => operation["security"] = json!([admin]),
        }
    }
    let schemas = document["components"]["schemas"].as_object_mut().into_iter().flatten();
    for (_, schema) in schemas.filter(|(name, _)| ["NewWorkspace", "NewTenant", "WorkspacePatch"].contains(&name.as_str())) {
        schema["properties"]["env"]["propertyNames"] = json!({ "pattern": VARIABLE });
    }
    document
}

/// Says of what a path or a header takes what all of its kind take.
fn narrow(parameter: &mut Value) {
    match (parameter["in"].as_str(), parameter["name"].as_str()) {
        (Some("path"), Some("name")) => parameter["schema"]["pattern"] = NAME.into(),
        (Some("path"), Some("account")) => {
            parameter["schema"]["minLength"] = 1.into();
            parameter["schema"]["maxLength"] = AccountName::MAX_BYTES.into();
        }
        (Some("path"), Some("fingerprint")) => parameter["schema"]["pattern"] = "^SHA256:[A-Za-z0-9+/]{43}$".into(),
        (Some("header"), Some("Idempotency-Key")) => parameter["schema"] = json!({ "type": "string", "pattern": "^[!-~]{1,255}$" }),
        (Some("header"), Some("If-Match")) => parameter["schema"] = json!({ "type": "string", "pattern": "^(\\*|\"[!#-~]+\")$" }),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_of_every_route_is_described() {
        let document = super::super::openapi();
        let mut operations = 0;
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                operations += 1;
                let answers = operation["responses"].as_object().unwrap();
                assert!(answers.values().all(|answer| !answer["description"].as_str().unwrap().is_empty()), "{method} {path}");
                assert!(operation.get("parameters").is_none_or(serde_json::Value::is_array), "{method} {path}");
                assert!(operation["summary"].is_string() && answers.len() > 1, "{method} {path}");
            }
        }
        assert!(operations > 40, "{operations}");
    }

    /// Whether a schema says anything.
    fn is_typed(schema: &serde_json::Value) -> bool {
        ["$ref", "type", "oneOf", "allOf", "anyOf"].iter().any(|key| schema.get(key).is_some())
    }

    #[test]
    fn every_answer_and_every_member_of_it_has_a_type() {
        let document = super::super::openapi();
        let paths = document["paths"].as_object().unwrap().iter();
        for (path, method, operation) in
            paths.flat_map(|(path, item)| item.as_object().unwrap().iter().map(move |(method, operation)| (path, method, operation)))
        {
            for (status, answer) in operation["responses"].as_object().unwrap() {
                let kinds = answer.get("content").and_then(serde_json::Value::as_object);
                assert_eq!(kinds.is_some(), status != "204", "{method} {path} {status}");
                for (kind, content) in kinds.into_iter().flatten() {
                    assert!(is_typed(&content["schema"]), "{method} {path} {status} {kind}: {content}");
                }
            }
        }
        for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
            assert!(is_typed(schema), "{name}: {schema}");
            for (member, schema) in schema["properties"].as_object().into_iter().flatten() {
                assert!(is_typed(schema), "{name}.{member}: {schema}");
            }
        }
    }

    #[test]
    fn every_list_comes_in_pages() {
        let document = super::super::openapi();
        for (path, item) in document["paths"].as_object().unwrap() {
            let schema = &item["get"]["responses"]["200"]["content"]["application/json"]["schema"];
            let name = schema["$ref"].as_str().and_then(|name| name.rsplit('/').next()).unwrap_or_default();
            let members = &document["components"]["schemas"][name]["properties"];
            let is_list = members.get("items").is_some() || schema["properties"].get("items").is_some();
            let parameters = item["get"]["parameters"].as_array().cloned().unwrap_or_default();
            let takes = |name: &str| parameters.iter().any(|one| one["name"] == name);
            assert_eq!((is_list, is_list), (takes("limit"), takes("cursor")), "{path}");
        }
    }

    #[test]
    fn the_pattern_of_a_name_is_what_is_taken_for_one() {
        // The pattern itself is not run here: it is the words of `name.rs`, which these would not fit were they others.
        assert_eq!(NAME, format!("^[a-z0-9][a-z0-9-]{{0,{}}}$", crate::name::WorkspaceName::MAX_BYTES - 1));
    }
}
