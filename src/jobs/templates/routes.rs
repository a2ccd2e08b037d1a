//! Which templates there are.

use std::{collections::BTreeMap, sync::Arc};

use axum::{extract::State, http::StatusCode, response::Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{parameter::Parameter, template::Template};
use crate::{
    jobs::{Jobs, TEMPLATE, TEMPLATES, docs::Reads, namespaces::uncached, request::InPath},
    problem::Problem,
};

/// A template, without its Job.
#[derive(Debug, Serialize, ToSchema)]
pub struct Summary<'a> {
    /// What a create names it by.
    #[schema(example = "shell")]
    pub name: &'a str,
    /// What it does.
    pub description: &'a str,
    /// What a create may say in `parameters`.
    pub parameters: &'a BTreeMap<String, Parameter>,
}

/// A template.
#[derive(Debug, Serialize, ToSchema)]
pub struct Whole<'a> {
    #[serde(flatten)]
    summary: Summary<'a>,
    /// What a create would say in its place, with placeholders (`${{ name }}`).
    body: &'a Value,
}

/// All templates.
#[derive(Debug, Serialize, ToSchema)]
pub struct TemplateList<'a> {
    /// By their names.
    pub items: Vec<Summary<'a>>,
}

/// The templates that creates may name.
#[utoipa::path(get, path = TEMPLATES, operation_id = "list_templates", tag = "jobs",
    responses((status = 200, description = "All of them, without their Jobs", body = TemplateList), Reads),
    security(("token" = ["jobs:read"])))]
pub(in crate::jobs) async fn list(State(jobs): State<Arc<Jobs>>) -> Result<Response, Problem> {
    jobs.cluster()?;
    let items = jobs.templates.iter().map(Template::summary).collect();
    Ok(uncached(StatusCode::OK, TemplateList { items }))
}

/// A template.
#[utoipa::path(get, path = TEMPLATE, operation_id = "get_template", tag = "jobs",
    params(("name" = String, Path, description = "One that is listed", max_length = 63, pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")),
    responses((status = 200, description = "The template and its Job", body = Whole), Reads),
    security(("token" = ["jobs:read"])))]
pub(in crate::jobs) async fn show(
    State(jobs): State<Arc<Jobs>>,
    InPath([name]): InPath<1>,
) -> Result<Response, Problem> {
    jobs.cluster()?;
    let Some(template) = jobs.templates.get(&name) else {
        return Err(Problem::new(StatusCode::NOT_FOUND, "there is no template of this name"));
    };
    Ok(uncached(StatusCode::OK, Whole { summary: template.summary(), body: &template.body }))
}

impl Template {
    fn summary(&self) -> Summary<'_> {
        Summary { name: &self.name, description: &self.description, parameters: &self.parameters }
    }
}
