//! The OpenAPI document of both APIs, served at `/openapi.json`.
//!
//! It is made from the code: paths and methods come from the table that the router is made from too ([`Routes`]), so no
//! route is without its description; schemas come from the types that are written, by derive, with their comments. What
//! all calls have in common (refusals, headers, parameters) is said once, in `common`.

use std::{borrow::Cow, sync::LazyLock};

use axum::{
    Router,
    body::Bytes,
    handler::Handler,
    http::header,
    response::IntoResponse,
    routing::{MethodFilter, on},
};
use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use self::common::Api;
use super::App;

mod common;

/// `GET /openapi.json`
pub(super) async fn show() -> impl IntoResponse {
    // Made when somebody asks for the first time: most daemons are never asked.
    static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| document(&super::routes().described).to_string().into());
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.clone())
}

/// Routes, each with its description.
pub(super) struct Routes {
    base: &'static str,
    router: Router<App>,
    described: Vec<Described>,
}

/// What is at a path for a method.
struct Described {
    path: String,
    method: &'static str,
    operation: Operation,
}

impl Routes {
    /// Routes whose paths all begin with `base`.
    pub(super) fn at(base: &'static str) -> Self {
        Self { base, router: Router::new(), described: Vec::new() }
    }

    pub(super) fn get<T: 'static>(self, path: &str, handler: impl Handler<T, App>, operation: Operation) -> Self {
        self.route(MethodFilter::GET, "get", path, handler, operation)
    }

    pub(super) fn post<T: 'static>(self, path: &str, handler: impl Handler<T, App>, operation: Operation) -> Self {
        self.route(MethodFilter::POST, "post", path, handler, operation)
    }

    pub(super) fn delete<T: 'static>(self, path: &str, handler: impl Handler<T, App>, operation: Operation) -> Self {
        self.route(MethodFilter::DELETE, "delete", path, handler, operation)
    }

    fn route<T: 'static>(
        mut self,
        filter: MethodFilter,
        method: &'static str,
        path: &str,
        handler: impl Handler<T, App>,
        operation: Operation,
    ) -> Self {
        let path = format!("{}{path}", self.base);
        self.router = self.router.route(&path, on(filter, handler));
        self.described.push(Described { path, method, operation });
        self
    }

    /// What is answered where there is no route, described as if it were one.
    pub(super) fn fallback<T: 'static>(
        mut self,
        path: &str,
        handler: impl Handler<T, App>,
        operation: Operation,
    ) -> Self {
        self.router = self.router.fallback(handler);
        self.described.push(Described { path: path.to_owned(), method: "get", operation });
        self
    }

    /// Together with others.
    pub(super) fn merge(mut self, others: Self) -> Self {
        self.router = self.router.merge(others.router);
        self.described.extend(others.described);
        self
    }

    /// With others below a path.
    pub(super) fn nest(mut self, path: &str, others: Self) -> Self {
        self.router = self.router.nest(path, others.router);
        let below = |of: Described| Described { path: format!("{path}{}", of.path), ..of };
        self.described.extend(others.described.into_iter().map(below));
        self
    }

    /// Changes what is no route.
    pub(super) fn map(mut self, change: impl FnOnce(Router<App>) -> Router<App>) -> Self {
        self.router = change(self.router);
        self
    }

    pub(super) fn router(self) -> Router<App> {
        self.router
    }
}

/// Makes the schema of a type, which goes among the document's components.
type MakeSchema = fn(&mut SchemaGenerator) -> Schema;

/// The description of one call.
pub(super) struct Operation {
    name: &'static str,
    summary: &'static str,
    query: Option<Schema>,
    body: Option<(Value, bool)>,
    status: u16,
    answer: &'static str,
    content: Content,
    about_instance: bool,
    needs_identity: bool,
    /// 503 may have the same body.
    may_be_unready: bool,
}

/// What an answer's body is.
enum Content {
    None,
    /// Of these media types.
    Text(&'static [&'static str]),
    Json(MakeSchema),
    /// Server-sent events, each with data in JSON.
    Events(MakeSchema),
}

impl Operation {
    /// A call that answers with a `T`, of which `answer` says what it is.
    pub(super) fn new<T: JsonSchema>(
        name: &'static str,
        summary: &'static str,
        status: u16,
        answer: &'static str,
    ) -> Self {
        Self {
            name,
            summary,
            query: None,
            body: None,
            status,
            answer,
            content: Content::Json(SchemaGenerator::subschema_for::<T>),
            about_instance: false,
            needs_identity: true,
            may_be_unready: false,
        }
    }

    /// One that answers with text, of one of these media types.
    pub(super) fn text(
        name: &'static str,
        summary: &'static str,
        answer: &'static str,
        types: &'static [&'static str],
    ) -> Self {
        Self { content: Content::Text(types), ..Self::new::<()>(name, summary, 200, answer) }
    }

    /// One that answers with events, whose data are `T`s.
    pub(super) fn events<T: JsonSchema>(name: &'static str, summary: &'static str, answer: &'static str) -> Self {
        Self {
            content: Content::Events(SchemaGenerator::subschema_for::<T>),
            ..Self::new::<()>(name, summary, 200, answer)
        }
    }

    /// A documented call that no host can serve.
    pub(super) fn elsewhere(name: &'static str, summary: &'static str) -> Self {
        Self { content: Content::None, ..Self::new::<()>(name, summary, 501, "") }
    }

    /// Takes what `T` has as its query's parameters.
    pub(super) fn query<T: JsonSchema>(self) -> Self {
        let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
        Self { query: Some(settings.into_generator().into_root_schema_for::<T>()), ..self }
    }

    /// Takes a body, of which this is the schema in JSON.
    pub(super) fn body(self, schema: Value, required: bool) -> Self {
        Self { body: Some((schema, required)), ..self }
    }

    /// Is about one instance: its record may be stale, known to the caller, or being made.
    pub(super) fn about_instance(self) -> Self {
        Self { about_instance: true, ..self }
    }

    /// May answer the same with 503.
    pub(super) fn may_be_unready(self) -> Self {
        Self { may_be_unready: true, ..self }
    }

    /// Is answered to anybody.
    pub(super) fn open(self) -> Self {
        Self { needs_identity: false, ..self }
    }
}

/// The document.
fn document(described: &[Described]) -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| {
        settings.definitions_path = Cow::Borrowed("/components/schemas");
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let mut components = common::components(&mut generator);
    let mut paths = Map::new();
    for Described { path, method, operation } in described {
        let item = paths.entry(path.clone()).or_insert_with(|| json!({ "parameters": common::path_parameters(path) }));
        item[method] = operation.object(path, &mut generator);
    }
    components["schemas"] = Value::Object(generator.take_definitions(true));
    json!({
        "openapi": "3.1.1",
        "info": {
            "title": env!("CARGO_PKG_NAME"),
            "version": env!("CARGO_PKG_VERSION"),
            "summary": env!("CARGO_PKG_DESCRIPTION"),
            "description": common::DESCRIPTION,
            "license": { "name": "Apache License 2.0", "identifier": env!("CARGO_PKG_LICENSE") },
        },
        "tags": common::tags(),
        "security": common::security(),
        "paths": paths,
        "components": components,
    })
}

impl Operation {
    fn object(&self, path: &str, generator: &mut SchemaGenerator) -> Value {
        let api = Api::of_path(path);
        let mut object = json!({
            "operationId": self.id(path),
            "summary": self.summary,
            "tags": [api.tag()],
            "parameters": self.parameters(api),
            "responses": self.responses(api, generator),
        });
        if let Some((schema, required)) = &self.body {
            let media_types = api.request_media_types(schema);
            object["requestBody"] = json!({ "required": required, "content": media_types });
        }
        if !self.needs_identity {
            object["security"] = json!([]);
        }
        object
    }

    /// Unique, although a call is there under several bases: `show_limits_v2_1_project`.
    fn id(&self, path: &str) -> String {
        let mut segments = path.split('/').skip(1);
        let version = segments.next().filter(|root| root.starts_with('v') && !self.name.starts_with("show_version"));
        let project = segments.next().filter(|segment| version == Some("v2.1") && *segment == "{project}");
        let parts = [Some(self.name), version, project.map(|_| "project")];
        parts.into_iter().flatten().collect::<Vec<_>>().join("_").replace('.', "_")
    }

    fn parameters(&self, api: Api) -> Vec<Value> {
        let mut parameters = api.header_parameters(self.needs_identity);
        if self.about_instance && self.body.is_none() {
            parameters.push(common::parameter("If-None-Match"));
        }
        let query = self.query.as_ref().map(Schema::as_value);
        let required = |name: &String| {
            query.and_then(|query| query["required"].as_array()).is_some_and(|all| all.iter().any(|one| one == name))
        };
        for (name, schema) in query.and_then(|query| query["properties"].as_object()).into_iter().flatten() {
            let mut schema = schema.clone();
            take_null(&mut schema);
            let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
            let required = required(name);
            parameters.push(json!({
                "name": name, "in": "query", "required": required, "description": description, "schema": schema,
            }));
        }
        parameters
    }

    fn responses(&self, api: Api, generator: &mut SchemaGenerator) -> Value {
        let mut responses = Map::new();
        for fault in api.faults() {
            if fault.meets(api, self) {
                responses.insert(fault.status.to_string(), common::fault_response(api, fault));
            }
        }
        let content = match &self.content {
            Content::None => return Value::Object(responses),
            Content::Text(types) => {
                let text = json!({ "schema": { "type": "string" } });
                types.iter().map(|name| ((*name).to_owned(), text.clone())).collect::<Map<_, _>>().into()
            }
            Content::Events(schema) => {
                let data = json!({ "contentMediaType": "application/json", "contentSchema": schema(generator) });
                let event = json!({ "type": "string", "description": "The data of each event:", "allOf": [data] });
                json!({ "text/event-stream": { "schema": event } })
            }
            Content::Json(schema) => api.answer_media_types(&Value::from(schema(generator))),
        };
        let headers = api.answer_headers(self.needs_identity);
        let mut insert = |status: u16, description: &str, freshness: &[&str], content: Option<&Value>| {
            let mut headers = headers.clone();
            headers.extend(freshness.iter().map(|name| ((*name).to_owned(), common::header(name))));
            let mut response = json!({ "description": description, "headers": headers });
            if let Some(content) = content {
                response["content"] = content.clone();
            }
            responses.insert(status.to_string(), response);
        };
        match (self.about_instance, self.status) {
            (false, status) => insert(status, self.answer, &[], Some(&content)),
            (true, 200) => {
                insert(200, self.answer, &["ETag", "Age"], Some(&content));
                insert(203, common::STALE, &["ETag", "Age", "Warning"], Some(&content));
                insert(304, common::UNCHANGED, &["ETag", "Age"], None);
            }
            (true, status) => insert(status, self.answer, &["ETag", "Age"], Some(&content)),
        }
        if self.may_be_unready {
            insert(503, self.answer, &["Retry-After"], Some(&common::or_fault(&content, 503)));
        }
        Value::Object(responses)
    }
}

/// A parameter of a query is there or not; it is never null.
fn take_null(schema: &mut Value) {
    if let Some(Value::Array(all)) = schema.get_mut("anyOf") {
        all.retain(|one| one["type"] != "null");
    }
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|one| one != "null");
    }
    if let Some(schema) = schema.as_object_mut().filter(|schema| schema.get("default") == Some(&Value::Null)) {
        schema.remove("default");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;
    use crate::http::{
        compute::tests::{ask, one_vif, request},
        routes,
    };

    #[tokio::test]
    async fn every_call_is_described_and_every_description_is_a_call() {
        let mut methods: HashMap<_, HashSet<_>> = HashMap::new();
        for Described { path, method, .. } in routes().described {
            methods.entry(path).or_default().insert(method.to_uppercase());
        }
        for (path, described) in &methods {
            for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
                let at = path.replace("{path}", "servers").replace(['{', '}'], "");
                let status = ask(one_vif(), request(&format!("{method} {at}"), &[], "")).await.status();
                // A path without a version gets the choices, whatever is asked.
                let is_call = described.contains(method) || path == "/{path}";
                assert_eq!(status != 405, is_call, "{method} {path}: {status}");
            }
        }
    }

    #[test]
    fn every_call_has_a_name_of_its_own() {
        let described = routes().described;
        let names: HashSet<_> = described.iter().map(|of| of.operation.id(&of.path)).collect();
        assert_eq!(names.len(), described.len(), "{names:?}");
    }
}
