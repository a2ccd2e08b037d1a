//! A template: a file, read and checked.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    parameter::Parameter,
    placeholder::{self, Filled},
    yaml::{Document, Wrong},
};
use crate::{
    jobs::{
        manifest::Draft,
        names::{self, Images},
        pointer::escaped,
    },
    problem::FieldError,
};

/// A Job with placeholders, and what they stand for.
#[derive(Debug)]
pub struct Template {
    /// Its name: a DNS label.
    pub name: String,
    /// What it does.
    pub description: String,
    /// What a caller may say.
    pub parameters: BTreeMap<String, Parameter>,
    /// The body of a create, with placeholders: a short form, or `job_manifest`.
    pub body: Value,
}

/// Where a short form stands in a file; a manifest stands where it does in a create.
const SHORT_FORM: &str = "job";

impl Template {
    /// A template, and the line on which its name is.
    ///
    /// # Errors
    /// The first thing that is wrong, and on which line.
    pub fn read(text: &str) -> Result<(Self, u64), Wrong> {
        let document = Document::read(text)?;
        let Some(members) = document.value.as_object() else {
            return Err(document.wrong("", "a template is a mapping"));
        };
        for name in members.keys() {
            if !["name", "description", "parameters", SHORT_FORM, "job_manifest"].contains(&name.as_str()) {
                return Err(document.wrong(&format!("/{}", escaped(name)), "is not known"));
            }
        }
        let text = |field: &str| match members.get(field) {
            Some(Value::String(text)) if !text.trim().is_empty() => Ok(text.clone()),
            None => Err(document.wrong(&format!("/{field}"), "is missing")),
            Some(_) => Err(document.wrong(&format!("/{field}"), "must be a string with something in it")),
        };
        let name = text("name")?;
        if !names::is_label(&name) {
            return Err(document.wrong("/name", names::LABEL_RULE));
        }
        let template = Self {
            name,
            description: text("description")?,
            parameters: parameters(&document, members)?,
            body: body(&document, members)?,
        };
        template.check_placeholders(&document)?;
        template.check_job(&document)?;
        let line = document.line("/name");
        Ok((template, line))
    }

    /// The body of a create that a caller asks for with `given`.
    ///
    /// # Errors
    /// What is wrong with `given`, by its pointer in a create.
    pub fn fill(&self, given: &Map<String, Value>) -> Result<Filled, Vec<FieldError>> {
        let mut errors = Vec::new();
        let mut error = |name: &str, detail: String| {
            errors.push(FieldError { pointer: format!("/parameters/{}", escaped(name)), detail });
        };
        for name in given.keys().filter(|name| !self.parameters.contains_key(*name)) {
            error(name, "is not known".to_owned());
        }
        let mut values = BTreeMap::new();
        for (name, parameter) in &self.parameters {
            let given = given.get(name).filter(|value| !value.is_null());
            match given.or(parameter.default.as_ref()) {
                Some(value) => match parameter.check(value) {
                    Ok(()) => drop(values.insert(name.as_str(), value.clone())),
                    Err(detail) => error(name, detail),
                },
                None if parameter.required => error(name, "is missing".to_owned()),
                None => {}
            }
        }
        if errors.is_empty() { Ok(placeholder::fill(&self.body, &values)) } else { Err(errors) }
    }

    /// Each placeholder has a parameter, and each parameter a placeholder.
    fn check_placeholders(&self, document: &Document) -> Result<(), Wrong> {
        let mut unused: Vec<_> = self.parameters.keys().map(String::as_str).collect();
        let mut scalars = Vec::new();
        collect(&self.body, self.in_file(""), &mut scalars);
        for (pointer, text, is_key) in scalars {
            for (found, is_whole) in
                placeholder::of(text).map_err(|detail| document.wrong(&pointer, detail))?
            {
                let name = found.name;
                let Some(parameter) = self.parameters.get(name) else {
                    return Err(document.wrong(&pointer, format!("names {name}, which is no parameter")));
                };
                if is_key {
                    return Err(document.wrong(&pointer, "has a placeholder in its name"));
                }
                if !is_whole && !parameter.required && parameter.default.is_none() {
                    let detail =
                        format!("has {name} within a text, which is neither required nor has a default");
                    return Err(document.wrong(&pointer, detail));
                }
                unused.retain(|unused| *unused != name);
            }
        }
        match unused.first() {
            Some(name) => Err(document.wrong(&format!("/parameters/{name}"), "is used nowhere")),
            None => Ok(()),
        }
    }

    /// What the template itself says makes a Job that the policy lets pass, images aside: those are a setting. What a caller
    /// says is looked at when it is said.
    fn check_job(&self, document: &Document) -> Result<(), Wrong> {
        let samples = self.parameters.iter().map(|(name, parameter)| (name.as_str(), parameter.sample()));
        let filled = placeholder::fill(&self.body, &samples.collect());
        let any_image: Images = "*".parse().unwrap_or_default();
        let outcome = Draft::read(&filled.body, "template").and_then(|draft| draft.check(&any_image));
        let is_sample = |error: &FieldError| {
            let is_in = |place: &str| {
                error.pointer.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            filled.places.iter().any(|(place, _)| is_in(place))
        };
        match outcome.err().into_iter().flatten().find(|error| !is_sample(error)) {
            Some(error) => Err(document.wrong(&self.in_file(&error.pointer), error.detail)),
            None => Ok(()),
        }
    }

    /// Where in the file stands what is at `pointer` in the body.
    fn in_file(&self, pointer: &str) -> String {
        let is_manifest = self.body.get("job_manifest").is_some();
        if is_manifest { pointer.to_owned() } else { format!("/{SHORT_FORM}{pointer}") }
    }
}

fn parameters(
    document: &Document,
    members: &Map<String, Value>,
) -> Result<BTreeMap<String, Parameter>, Wrong> {
    let described = match members.get("parameters") {
        None | Some(Value::Null) => return Ok(BTreeMap::new()),
        Some(Value::Object(described)) => described,
        Some(_) => return Err(document.wrong("/parameters", "must be a mapping")),
    };
    let mut parameters = BTreeMap::new();
    for (name, description) in described {
        let at = format!("/parameters/{}", escaped(name));
        if !placeholder::is_name(name) {
            let detail = "must be called by lower-case letters, digits and underscores, a letter first";
            return Err(document.wrong(&at, detail));
        }
        let parameter = Parameter::read(description).map_err(|errors| match errors.into_iter().next() {
            Some(error) => document.wrong(&format!("{at}{}", error.pointer), error.detail),
            None => document.wrong(&at, "cannot be read"),
        })?;
        parameters.insert(name.clone(), parameter);
    }
    Ok(parameters)
}

fn body(document: &Document, members: &Map<String, Value>) -> Result<Value, Wrong> {
    match (members.get(SHORT_FORM), members.get("job_manifest")) {
        (Some(short @ Value::Object(_)), None) => Ok(short.clone()),
        (None, Some(manifest @ Value::Object(_))) => Ok(json!({"job_manifest": manifest})),
        (Some(_), None) => Err(document.wrong("/job", "must be a mapping")),
        (None, Some(_)) => Err(document.wrong("/job_manifest", "must be a mapping")),
        (None, None) => Err(document.wrong("", "job is missing, and so is job_manifest")),
        (Some(_), Some(_)) => Err(document.wrong("/job_manifest", "does not go with job")),
    }
}

/// Every text, members' names among them, and where it stands.
fn collect<'a>(tree: &'a Value, pointer: String, scalars: &mut Vec<(String, &'a str, bool)>) {
    match tree {
        Value::Object(members) => {
            for (name, member) in members {
                let pointer = format!("{pointer}/{}", escaped(name));
                scalars.push((pointer.clone(), name, true));
                collect(member, pointer, scalars);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                collect(item, format!("{pointer}/{index}"), scalars);
            }
        }
        Value::String(text) => scalars.push((pointer, text, false)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
name: render
description: Renders frames.
parameters:
  frames:
    type: integer
    description: How many.
    minimum: 1
    maximum: 100
    default: 10
  scene:
    type: string
    description: Which one.
    pattern: '[a-z0-9-]+'
    required: true
  memory:
    type: string
    description: How much; what every short form gets, when not given.
job:
  image: registry.example.com/team/render:1
  args: ['--scene=${{ scene }}', '${{ frames | string }}']
  memory: ${{ memory }}
  completions: ${{ frames }}
  env:
    SCENE: ${{ scene }}
";

    fn fill(given: Value) -> Result<Filled, Vec<String>> {
        let (template, _) = Template::read(GOOD).unwrap();
        let pointers = |errors: Vec<FieldError>| errors.into_iter().map(|error| error.pointer).collect();
        template.fill(given.as_object().unwrap()).map_err(pointers)
    }

    #[test]
    fn a_template_becomes_a_body_with_the_callers_values() {
        let filled = fill(json!({"scene": "sea"})).unwrap();
        let expected = json!({
            "image": "registry.example.com/team/render:1",
            "args": ["--scene=sea", "10"],
            "completions": 10,
            "env": {"SCENE": "sea"},
        });
        assert_eq!(filled.body, expected);
        let filled = fill(json!({"scene": "sea", "frames": 3, "memory": "1Gi"})).unwrap().body;
        assert_eq!((&filled["completions"], &filled["memory"]), (&json!(3), &json!("1Gi")));
        assert_eq!(fill(json!({"scene": "sea", "frames": null})).unwrap().body["completions"], 10);
    }

    #[test]
    fn every_parameter_that_is_wrong_is_named() {
        assert_eq!(fill(json!({})), Err(vec!["/parameters/scene".to_owned()]));
        let wrong = fill(json!({"scene": "Sea", "frames": 0, "a/b": 1}));
        let expected = ["/parameters/a~1b", "/parameters/frames", "/parameters/scene"];
        assert_eq!(wrong, Err(expected.map(str::to_owned).to_vec()));
    }

    #[test]
    fn a_file_that_is_wrong_is_told_with_its_line() {
        for (from, to, expected) in [
            ("name: render", "name: Render", "1: /name must be 1 to 63"),
            ("name: render\n", "", "1: /name is missing"),
            ("description: Renders frames.", "descripton: x", "2: /descripton is not known"),
            ("    minimum: 1\n", "    minimum: x\n", "7: /parameters/frames/minimum must be a number"),
            (
                "    default: 10\n",
                "    default: 0\n",
                "9: /parameters/frames/default must be a whole number from 1 to 100",
            ),
            (
                "type: string\n    description: Which",
                "type: text\n    description: Which",
                "11: /parameters/scene/type must be",
            ),
            ("  memory:\n    type", "  Memory:\n    type", "15: /parameters/Memory must be called by"),
            ("job:\n", "jobs:\n", "18: /jobs is not known"),
            ("=${{ scene }}", "=${{ scenes }}", "20: /job/args/0 names scenes, which is no parameter"),
            ("=${{ scene }}", "=${{ scene }", "20: /job/args/0 has a"),
            ("=${{ scene }}", "=${{ memory }}", "20: /job/args/0 has memory within a text"),
            ("${{ frames | string }}", "${{ frames }}", "20: /job/args must be an array of strings"),
            ("  memory: ${{ memory }}\n", "", "15: /parameters/memory is used nowhere"),
            ("    SCENE:", "    ${{ scene }}:", "24: /job/env/${{ scene }} has a placeholder in its name"),
            ("  image: registry", "  imago: registry", "18: /job/image is missing"),
            (
                "  completions: ${{ frames }}",
                "  completions: ${{ frames }}\n  cpu: '0'",
                "23: /job/cpu must be a string, a quantity",
            ),
            ("job:\n", "job: [\n", "20: while parsing"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let wrong = Template::read(&GOOD.replacen(from, to, 1)).err().map(|wrong| wrong.to_string());
            let wrong = wrong.unwrap_or_else(|| panic!("{to:?} passes"));
            assert!(wrong.starts_with(expected), "{to:?}: {wrong}");
        }
    }

    #[test]
    fn a_manifest_is_a_template_too_and_looked_at_as_one() {
        let manifest = |more: &str| {
            format!(
                "name: whole\ndescription: d\nparameters:\n  n: {{type: integer, description: d, required: true}}\njob_manifest:\n  spec:\n    completions: ${{{{ n }}}}\n    template:\n      spec:\n        containers:\n        - name: main\n          image: registry.example.com/team/tool:1\n          resources: {{limits: {{cpu: 1, memory: 1Mi}}}}\n{more}"
            )
        };
        let (template, _) = Template::read(&manifest("")).unwrap();
        let filled = template.fill(json!({"n": 3}).as_object().unwrap()).unwrap();
        assert_eq!(filled.body["job_manifest"]["spec"]["completions"], 3);
        let wrong = Template::read(&manifest("        hostNetwork: true\n")).unwrap_err().to_string();
        assert!(wrong.starts_with("14: /job_manifest/spec/template/spec/hostNetwork "), "{wrong}");
    }
}
