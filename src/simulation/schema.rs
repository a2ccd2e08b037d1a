//! The OpenAPI document's words for a scenario, from the same table that reads it.

use serde_json::{Value, json};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr, Schema,
        schema::{AdditionalProperties, Object, ObjectBuilder, SchemaType, Type},
    },
};

use super::parameters::{Field, Kind, Parameters, fields};

/// What may be asked for; all of it may be left out.
pub(crate) struct Scenario;

impl ToSchema for Scenario {}

impl PartialSchema for Scenario {
    fn schema() -> RefOr<Schema> {
        let standard = Parameters::default().json();
        let mut whole = object("A scenario. What is left out has the value that this project ships.");
        let mut groups: Vec<(&str, ObjectBuilder)> = Vec::new();
        for field in fields() {
            let value = standard.pointer(&format!("/{}", field.name.replace('.', "/")));
            let schema = property(field, value.cloned());
            let Some((group, member)) = field.name.split_once('.') else {
                whole = whole.property(field.name, schema);
                continue;
            };
            match groups.iter_mut().find(|(name, _)| *name == group) {
                Some((_, known)) => *known = std::mem::take(known).property(member, schema),
                None => groups.push((group, object(about(group)).property(member, schema))),
            }
        }
        for (name, group) in groups {
            whole = whole.property(name, group.build());
        }
        whole.examples([json!({ "traffic": { "shape": "diurnal", "from": 5, "to": 200 } })]).build().into()
    }
}

fn object(description: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .description(Some(description))
        .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(false)))
}

fn about(group: &str) -> &'static str {
    match group {
        "traffic" => "Requests a second over time.",
        "profile" => "What a request costs.",
        "eks" => "The Deployment, its autoscaler and its nodes.",
        _ => "The function and its gateway.",
    }
}

fn property(field: &Field, default: Option<Value>) -> Object {
    let unit = if field.unit.is_empty() { String::new() } else { format!(" ({})", field.unit) };
    let schema = ObjectBuilder::new().description(Some(format!("{}{unit}", field.label))).default(default);
    let within =
        |schema: ObjectBuilder, least: f64, most: f64| schema.minimum(Some(least)).maximum(Some(most));
    match field.kind {
        Kind::Number { least, most, .. } => within(schema.schema_type(Type::Number), least, most),
        Kind::Whole { least, most, .. } => within(schema.schema_type(Type::Integer), least, most),
        Kind::Optional { least, most, .. } => {
            within(schema.schema_type(SchemaType::from_iter([Type::Integer, Type::Null])), least, most)
        }
        Kind::Choice { of, .. } => {
            schema.schema_type(Type::String).enum_values(Some(of.iter().map(|(value, _)| *value)))
        }
        Kind::Switch { .. } => schema.schema_type(Type::Boolean),
    }
    .build()
}
