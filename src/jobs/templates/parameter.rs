//! What a caller may say to a template: typed, bounded, documented.

use regex_lite::Regex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::{jobs::manifest::Fields, problem::FieldError};

/// Longest string, in characters, where the template does not say.
const DEFAULT_MAX_LENGTH: u32 = 1024;

/// A parameter.
#[derive(Debug, Serialize, ToSchema)]
pub struct Parameter {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// What it is for.
    pub description: String,
    /// Whether it must be given.
    pub required: bool,
    /// What it is when it is not given; absent, and what stands in its place is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// What it may be, if not everything else.
    #[serde(rename = "enum", skip_serializing_if = "Option::is_none")]
    pub choices: Option<Vec<Value>>,
    /// A regular expression that a whole string must match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// Most characters of a string.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length: Option<u32>,
    /// The least number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum: Option<f64>,
    /// The greatest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum: Option<f64>,
    #[serde(skip)]
    regex: Option<Regex>,
}

/// The types that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Text.
    String,
    /// A whole number of 64 bits.
    Integer,
    /// A number.
    Number,
    /// `true` or `false`.
    Boolean,
}

impl Parameter {
    /// A parameter as a file describes it.
    ///
    /// # Errors
    /// What is wrong, by its pointer in the description.
    pub fn read(described: &Value) -> Result<Self, Vec<FieldError>> {
        let none = Map::new();
        let members = described.as_object().unwrap_or(&none);
        let mut fields = Fields { members, known: Vec::new(), errors: Vec::new() };
        let kind = fields.read::<Kind>("type", "must be string, integer, number or boolean");
        let description = fields.read::<String>("description", "must be a string").unwrap_or_default();
        let whole = "must be a whole number";
        let parameter = Self {
            kind: kind.unwrap_or(Kind::String),
            description,
            required: fields.read("required", "must be true or false").unwrap_or(false),
            default: fields.read("default", ""),
            choices: fields.read("enum", "must be an array"),
            pattern: fields.read("pattern", "must be a string"),
            max_length: fields.read("max_length", whole),
            minimum: fields.read("minimum", "must be a number"),
            maximum: fields.read("maximum", "must be a number"),
            regex: None,
        };
        if kind.is_none() && !fields.errors.iter().any(|error| error.pointer == "/type") {
            fields.errors.push(FieldError::field("type", "is missing"));
        }
        let read = fields.finish(parameter)?;
        read.checked().map_err(|error| vec![error])
    }

    /// What no single member shows.
    fn checked(mut self) -> Result<Self, FieldError> {
        let text = self.kind == Kind::String;
        let number = matches!(self.kind, Kind::Integer | Kind::Number);
        let fits = [
            ("pattern", self.pattern.is_some(), text),
            ("max_length", self.max_length.is_some(), text),
            ("minimum", self.minimum.is_some(), number),
            ("maximum", self.maximum.is_some(), number),
            ("enum", self.choices.is_some(), self.kind != Kind::Boolean),
        ];
        if let Some((name, ..)) = fits.into_iter().find(|(_, is_given, may)| *is_given && !may) {
            return Err(FieldError::field(name, "does not go with this type"));
        }
        if self.description.trim().is_empty() {
            return Err(FieldError::field("description", "is missing"));
        }
        if self.required && self.default.is_some() {
            return Err(FieldError::field("default", "does not go with required"));
        }
        if self.minimum.zip(self.maximum).is_some_and(|(least, most)| least > most) {
            return Err(FieldError::field("minimum", "is above maximum"));
        }
        if let Some(pattern) = &self.pattern {
            let whole = Regex::new(&format!("^(?:{pattern})$"));
            let whole = whole.map_err(|error| {
                FieldError::field(
                    "pattern",
                    format!("is no regular expression: {}", one_line(&error.to_string())),
                )
            })?;
            self.regex = Some(whole);
        }
        self.check_choices()?;
        if let Some(default) = &self.default {
            self.check(default).map_err(|detail| FieldError::field("default", detail))?;
        }
        Ok(self)
    }

    fn check_choices(&mut self) -> Result<(), FieldError> {
        let Some(choices) = self.choices.take() else { return Ok(()) };
        if choices.is_empty() {
            return Err(FieldError::field("enum", "is empty"));
        }
        for (index, choice) in choices.iter().enumerate() {
            let wrong = |detail| FieldError { pointer: format!("/enum/{index}"), detail };
            self.check(choice).map_err(wrong)?;
        }
        self.choices = Some(choices);
        Ok(())
    }

    /// Whether a caller may say this.
    ///
    /// # Errors
    /// What it must be instead, to be read after the parameter's name.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        let is_right = match self.kind {
            Kind::String => value.as_str().is_some_and(|text| self.is_right_text(text)),
            Kind::Integer => value.as_i64().is_some() && self.is_within(value),
            Kind::Number => value.as_f64().is_some() && self.is_within(value),
            Kind::Boolean => value.is_boolean(),
        };
        let is_choice = self.choices.as_ref().is_none_or(|choices| choices.contains(value));
        if is_right && is_choice { Ok(()) } else { Err(self.rule()) }
    }

    fn is_right_text(&self, text: &str) -> bool {
        let most = self.max_length.unwrap_or(DEFAULT_MAX_LENGTH) as usize;
        // No process can be handed a NUL.
        text.chars().count() <= most
            && !text.contains('\0')
            && self.regex.as_ref().is_none_or(|regex| regex.is_match(text))
    }

    fn is_within(&self, value: &Value) -> bool {
        let is_above = |value: f64| self.minimum.is_none_or(|least| least <= value);
        let is_below = |value: f64| self.maximum.is_none_or(|most| value <= most);
        value.as_f64().is_some_and(|value| is_above(value) && is_below(value))
    }

    fn rule(&self) -> String {
        if let Some(choices) = &self.choices {
            let choices: Vec<_> = choices.iter().map(Value::to_string).collect();
            return format!("must be one of {}", choices.join(", "));
        }
        let kind = match self.kind {
            Kind::String => {
                let most = self.max_length.unwrap_or(DEFAULT_MAX_LENGTH);
                let matching =
                    self.pattern.as_ref().map(|pattern| format!(" that matches {pattern} as a whole"));
                return format!(
                    "must be a string of at most {most} characters{}",
                    matching.unwrap_or_default()
                );
            }
            Kind::Boolean => return "must be true or false".to_owned(),
            Kind::Integer => "must be a whole number",
            Kind::Number => "must be a number",
        };
        match (self.minimum, self.maximum) {
            (Some(least), Some(most)) => format!("{kind} from {least} to {most}"),
            (Some(least), None) => format!("{kind} of at least {least}"),
            (None, Some(most)) => format!("{kind} of at most {most}"),
            (None, None) => kind.to_owned(),
        }
    }

    /// Something that a caller may say, if one can be told without solving riddles.
    #[must_use]
    pub fn sample(&self) -> Value {
        let first = self.choices.as_ref().and_then(|choices| choices.first());
        self.default.as_ref().or(first).cloned().unwrap_or_else(|| match self.kind {
            Kind::String => "x".into(),
            Kind::Integer => Value::from(self.minimum.or(self.maximum).unwrap_or(1.0) as i64),
            Kind::Number => self.minimum.or(self.maximum).unwrap_or(1.0).into(),
            Kind::Boolean => false.into(),
        })
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_parameter_takes_what_it_says() {
        let describe = |more: Value| {
            let mut described = json!({"description": "d"});
            described.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            Parameter::read(&described).unwrap()
        };
        for (described, good, bad) in [
            (
                json!({"type": "string"}),
                vec![json!(""), json!("a\nb\"}"), json!("x".repeat(1024))],
                vec![json!(1), json!(null), json!(["a"]), json!({}), json!("x".repeat(1025)), json!("a\0b")],
            ),
            (
                json!({"type": "string", "pattern": "[a-z]+|[0-9]+", "max_length": 3}),
                vec![json!("abc"), json!("12")],
                vec![json!(""), json!("abcd"), json!("a1"), json!("a\n"), json!("\na"), json!(12)],
            ),
            (
                json!({"type": "string", "enum": ["a", "b"]}),
                vec![json!("a")],
                vec![json!("c"), json!("A"), json!(["a"])],
            ),
            (
                json!({"type": "integer", "minimum": 1, "maximum": 10}),
                vec![json!(1), json!(10)],
                vec![json!(0), json!(11), json!(1.5), json!(2.0), json!("2"), json!(true), json!(1e30)],
            ),
            (json!({"type": "integer"}), vec![json!(i64::MIN), json!(i64::MAX)], vec![json!(u64::MAX)]),
            (
                json!({"type": "number", "minimum": 0.5}),
                vec![json!(0.5), json!(7)],
                vec![json!(0.4), json!("1")],
            ),
            (
                json!({"type": "boolean"}),
                vec![json!(true), json!(false)],
                vec![json!("true"), json!(1), json!(0)],
            ),
        ] {
            let parameter = describe(described);
            for value in good {
                assert_eq!(parameter.check(&value), Ok(()), "{parameter:?} {value}");
            }
            for value in bad {
                assert!(parameter.check(&value).is_err(), "{parameter:?} {value}");
            }
        }
    }

    #[test]
    fn a_description_that_cannot_be_meant_is_refused_where_it_is_wrong() {
        for (described, pointer) in [
            (json!({}), "/type"),
            (json!({"type": "text"}), "/type"),
            (json!({"type": "string"}), "/description"),
            (json!({"type": "string", "description": " "}), "/description"),
            (json!({"type": "string", "description": "d", "pattern": "["}), "/pattern"),
            (json!({"type": "integer", "description": "d", "pattern": "a"}), "/pattern"),
            (json!({"type": "string", "description": "d", "minimum": 1}), "/minimum"),
            (json!({"type": "boolean", "description": "d", "enum": [true]}), "/enum"),
            (json!({"type": "string", "description": "d", "enum": []}), "/enum"),
            (json!({"type": "string", "description": "d", "enum": ["a", 1]}), "/enum/1"),
            (json!({"type": "integer", "description": "d", "minimum": 2, "maximum": 1}), "/minimum"),
            (json!({"type": "integer", "description": "d", "minimum": 2, "default": 1}), "/default"),
            (json!({"type": "string", "description": "d", "required": true, "default": "a"}), "/default"),
            (json!({"type": "string", "description": "d", "maxlength": 1}), "/maxlength"),
        ] {
            let errors = Parameter::read(&described).unwrap_err();
            assert_eq!(errors[0].pointer, pointer, "{described} {errors:?}");
        }
    }
}
