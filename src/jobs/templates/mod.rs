//! Jobs that somebody has thought through: a create names one, and says what differs.
//!
//! - [`template`]: a file, read and checked.
//! - [`parameter`]: what a caller may say.
//! - [`placeholder`]: where that goes: as a value, never as text.
//! - `yaml`: a document, and the line on which each of its values stands.
//! - [`routes`]: which templates there are.
//!
//! Files are read once, at the start: one that is wrong stops it, so a caller meets only templates that work. What comes out
//! of one passes the same policy as any other Job.

pub mod parameter;
pub mod placeholder;
pub mod routes;
pub mod template;
mod yaml;

use std::{borrow::Cow, collections::BTreeMap, fs, io, path::Path, sync::Arc};

use serde_json::{Map, Value};

use self::template::Template;
use super::pointer::escaped;
use crate::problem::FieldError;

/// Largest file, in bytes.
const LARGEST_FILE: u64 = 256 * 1024;

/// Every template, by its name. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Templates(Arc<BTreeMap<String, Template>>);

/// A create's body, with a template in place of nothing but itself.
#[derive(Debug)]
pub struct Written<'a> {
    /// A short form or a manifest.
    pub body: Cow<'a, Value>,
    /// Where its values came from.
    pub origins: Origins,
}

/// Where the caller wrote what stands in a body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins(Option<FromTemplate>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct FromTemplate {
    name: String,
    /// Pointers into the body, and the parameter that is there.
    places: Vec<(String, String)>,
}

impl Templates {
    /// Reads every `*.yaml` and `*.yml` in the folder.
    ///
    /// # Errors
    /// One line: the setting, the file, its line, and what is wrong there.
    pub fn load(folder: &Path) -> Result<Self, String> {
        let failed =
            |path: &Path, error: io::Error| format!("JOBS_TEMPLATES_DIR: {}: {error}", path.display());
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).map_err(|error| failed(folder, error))? {
            let path = entry.map_err(|error| failed(folder, error))?.path();
            let is_yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
            // A ConfigMap's files are links into `..data`, a hidden folder.
            let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if is_yaml && !is_hidden {
                files.push(path);
            }
        }
        files.sort();
        let mut templates = BTreeMap::new();
        for path in files {
            let text = read(&path).map_err(|error| failed(&path, error))?;
            let (template, line) = Template::read(&text)
                .map_err(|wrong| format!("JOBS_TEMPLATES_DIR: {}:{wrong}", path.display()))?;
            if templates.contains_key(&template.name) {
                let (path, name) = (path.display(), &template.name);
                return Err(format!(
                    "JOBS_TEMPLATES_DIR: {path}:{line}: /name {name} is that of another file too"
                ));
            }
            templates.insert(template.name.clone(), template);
        }
        Ok(Self(Arc::new(templates)))
    }

    /// The one of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Template> {
        self.0.get(name)
    }

    /// All of them, by their names.
    pub fn iter(&self) -> impl Iterator<Item = &Template> {
        self.0.values()
    }

    /// `body`, and what it asks of a template in place of it, if it names one.
    ///
    /// # Errors
    /// What is wrong with the template's name or its parameters.
    pub fn written<'a>(&self, body: &'a Value) -> Result<Written<'a>, Vec<FieldError>> {
        let members = body.as_object().filter(|members| members.contains_key("template"));
        let Some(members) = members else {
            return Ok(Written { body: Cow::Borrowed(body), origins: Origins::default() });
        };
        let template = self.named(members)?;
        let given = match members.get("parameters") {
            None | Some(Value::Null) => &Map::new(),
            Some(Value::Object(given)) => given,
            Some(_) => return Err(vec![FieldError::field("parameters", "must be an object")]),
        };
        let filled = template.fill(given)?;
        let from = FromTemplate { name: template.name.clone(), places: filled.places };
        Ok(Written { body: Cow::Owned(filled.body), origins: Origins(Some(from)) })
    }

    fn named(&self, members: &Map<String, Value>) -> Result<&Template, Vec<FieldError>> {
        let beside = members.keys().filter(|name| !matches!(name.as_str(), "template" | "parameters"));
        let errors: Vec<_> =
            beside.map(|name| FieldError::field(&escaped(name), "does not go with template")).collect();
        if !errors.is_empty() {
            return Err(errors);
        }
        let name = members.get("template").and_then(Value::as_str);
        name.and_then(|name| self.get(name)).ok_or_else(|| {
            vec![FieldError::field("template", "is none of those that GET /api/v1/templates lists")]
        })
    }
}

impl Origins {
    /// The template's name, if there is one.
    #[must_use]
    pub fn template(&self) -> Option<&str> {
        self.0.as_ref().map(|from| from.name.as_str())
    }

    /// Where the caller wrote what stands at `pointer` in the body.
    #[must_use]
    pub fn pointer(&self, pointer: String) -> String {
        let Some(from) = &self.0 else { return pointer };
        let is_in = |place: &str| {
            pointer.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        match from.places.iter().find(|(place, _)| is_in(place)) {
            Some((_, parameter)) => format!("/parameters/{}", escaped(parameter)),
            None => "/template".to_owned(),
        }
    }

    /// An error about the body, told of what the caller wrote.
    #[must_use]
    pub fn error(&self, error: FieldError) -> FieldError {
        if self.0.is_none() {
            return error;
        }
        let pointer = self.pointer(error.pointer.clone());
        let detail = match pointer == "/template" {
            true => format!("makes a Job whose {} {}", error.pointer, error.detail),
            false => error.detail,
        };
        FieldError { pointer, detail }
    }
}

fn read(path: &Path) -> io::Result<String> {
    let length = fs::metadata(path)?.len();
    if length > LARGEST_FILE {
        return Err(io::Error::other(format!("is larger than {LARGEST_FILE} bytes")));
    }
    fs::read_to_string(path)
}
