//! From the text of a configuration file to a [`Spec`], or to everything that is wrong with it.
//!
//! The text is read twice: once for values, once for where they stand. What has the wrong name or shape is set aside, so that
//! the rest is still checked and all problems are reported at once.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use continuity::window::{NoWindow, Window};
use serde_json::{Value as Json, json};
use toml::Value;
use toml::de::{DeTable, DeValue};

use super::problem::{Place, Problem, SpecError};
use super::settings::{self, Shape};
use super::{Spec, rules};

/// Where a configuration comes from.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    file: &'a str,
    text: &'a str,
    suffix: Option<&'a str>,
}

impl<'a> Source<'a> {
    /// A file's name, as a person calls it, and its text.
    pub fn file(file: &'a str, text: &'a str) -> Self {
        Source {
            file,
            text,
            suffix: None,
        }
    }

    /// No file: every setting has its default.
    pub fn defaults() -> Self {
        Source::file("stack.toml", "")
    }

    /// What the option `--suffix` says, instead of the file.
    #[must_use]
    pub fn suffix(mut self, suffix: Option<&'a str>) -> Self {
        self.suffix = suffix;
        self
    }
}

pub(super) fn load(source: &Source<'_>) -> Result<Spec, SpecError> {
    let mut reader = Reader::new(source);
    let Some((tree, values)) = reader.parse() else {
        return Err(SpecError {
            problems: reader.problems,
        });
    };
    let mut json = serde_json::to_value(Spec::default()).unwrap_or_default();
    reader.table("", &tree, &values, &mut json);
    reader.whole_tables(&mut json);
    let mut spec: Spec = match serde_json::from_value(json) {
        Ok(spec) => spec,
        // The table of settings and the types say the same, a test proves it; still no reason to panic.
        Err(error) => {
            reader.add(Problem::new("", None, error.to_string(), ""), None);
            return Err(SpecError {
                problems: reader.problems,
            });
        }
    };
    if let Some(suffix) = source.suffix {
        spec.suffix = suffix.to_owned();
    }
    for problem in rules::check(&spec) {
        reader.found(problem);
    }
    let mut problems = reader.problems;
    problems.sort_by_key(|problem| match &problem.place {
        Place::Line { line, column, .. } => (*line, *column),
        _ => (usize::MAX, 0),
    });
    SpecError::unless_empty(problems)?;
    Ok(spec)
}

struct Reader<'a> {
    source: &'a Source<'a>,
    /// Where each value stands, in bytes.
    positions: BTreeMap<String, usize>,
    /// Fields that have no usable value.
    broken: BTreeSet<String>,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    fn new(source: &'a Source<'a>) -> Self {
        Reader {
            source,
            positions: BTreeMap::new(),
            broken: BTreeSet::new(),
            problems: Vec::new(),
        }
    }

    /// Values with and without positions; `None` when the text is no TOML.
    fn parse(&mut self) -> Option<(DeTable<'a>, toml::Table)> {
        let (tree, errors) = DeTable::parse_recoverable(self.source.text);
        for error in &errors {
            self.syntax(error);
        }
        if !errors.is_empty() {
            return None;
        }
        match toml::from_str(self.source.text) {
            Ok(values) => Some((tree.into_inner(), values)),
            Err(error) => {
                self.syntax(&error);
                None
            }
        }
    }

    fn syntax(&mut self, error: &toml::de::Error) {
        let problem = Problem::new("", None, format!("this is no TOML: {}", error.message()), "");
        self.add(problem, error.span().map(|span| span.start));
    }

    fn add(&mut self, mut problem: Problem, at: Option<usize>) {
        if let Some(at) = at {
            problem.place = self.place(at);
        }
        self.problems.push(problem);
    }

    fn place(&self, at: usize) -> Place {
        let before = self.source.text.get(..at).unwrap_or(self.source.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place::Line {
            file: self.source.file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    /// A value with the wrong name or shape.
    fn refuse(&mut self, path: &str, value: Option<String>, reason: String, fix: String, at: usize) {
        self.broken.insert(path.to_owned());
        self.add(Problem::new(path, value, reason, fix), Some(at));
    }

    fn table(&mut self, prefix: &str, tree: &DeTable<'_>, values: &toml::Table, json: &mut Json) {
        for (key, spanned) in tree {
            let name: &str = key.get_ref();
            let path = join(prefix, name);
            let (key_at, Range { start: at, .. }) = (key.span().start, spanned.span());
            let Some(value) = values.get(name) else { continue };
            if let Some(setting) = settings::find(&path) {
                self.positions.insert(path.clone(), at);
                match (setting.shape, spanned.get_ref(), value) {
                    (Shape::Texts, DeValue::Table(tree), Value::Table(values)) => {
                        self.texts(&path, tree, values, json);
                    }
                    (shape, _, value) => match read(shape, value) {
                        Ok(read) => set(json, &path, read),
                        Err((reason, fix)) => self.refuse(&path, Some(shown(value)), reason, fix, at),
                    },
                }
            } else if settings::is_table(&path) {
                self.positions.insert(path.clone(), key_at);
                match (spanned.get_ref(), value) {
                    (DeValue::Table(tree), Value::Table(values)) => self.table(&path, tree, values, json),
                    _ => self.refuse(
                        &path,
                        Some(shown(value)),
                        "this is a table".into(),
                        format!("write `[{path}]` on a line of its own, and below it its settings"),
                        at,
                    ),
                }
            } else {
                self.unknown(prefix, name, &path, key_at);
            }
        }
    }

    fn unknown(&mut self, prefix: &str, name: &str, path: &str, at: usize) {
        let keys = settings::keys_of(prefix);
        let fix = match settings::meant(name, keys.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => match elsewhere(name) {
                Some(setting) => format!("`{setting}` exists: did you mean that one?"),
                None => format!("known are {}", keys.join(", ")),
            },
        };
        let wherein = if prefix.is_empty() {
            String::new()
        } else {
            format!(" in [{prefix}]")
        };
        self.refuse(path, None, format!("there is no such setting{wherein}"), fix, at);
    }

    fn texts(&mut self, path: &str, tree: &DeTable<'_>, values: &toml::Table, json: &mut Json) {
        for (key, spanned) in tree {
            let name: &str = key.get_ref();
            let entry = join(path, name);
            let at = spanned.span().start;
            match values.get(name) {
                Some(Value::String(text)) => {
                    self.positions.insert(entry, at);
                    json[path][name] = json!(text);
                }
                Some(other) => {
                    let (reason, fix) = ("it must be text".into(), format!("write \"{}\"", shown(other)));
                    self.refuse(&entry, Some(shown(other)), reason, fix, at);
                }
                None => {}
            }
        }
    }

    /// Some tables make sense only as a whole.
    fn whole_tables(&mut self, json: &mut Json) {
        for table in settings::WHOLE_TABLES {
            let Some(&at) = self.positions.get(table) else {
                continue;
            };
            let missing: Vec<&str> = settings::keys_of(table)
                .into_iter()
                .filter(|key| {
                    let path = join(table, key);
                    !self.positions.contains_key(&path) && !self.broken.contains(&path)
                })
                .collect();
            let incomplete = !missing.is_empty() || self.broken.iter().any(|path| path.starts_with(table));
            if incomplete && table == "aurora.serverless" {
                set(json, table, Json::Null);
            }
            if !missing.is_empty() {
                let fix = format!(
                    "set `{}` as well, or leave the table out",
                    missing.join("` and `")
                );
                self.refuse(
                    table,
                    None,
                    "this table needs all of its settings".into(),
                    fix,
                    at,
                );
            } else if incomplete {
                self.broken.insert(table.to_owned());
            }
        }
    }

    /// A rule was broken: say where, unless a value that it is about was set aside already.
    fn found(&mut self, mut problem: Problem) {
        let field = problem.field.clone();
        let about = || std::iter::once(field.as_str()).chain(problem.related.iter().copied());
        let aside = about().any(|path| {
            self.broken.iter().any(|broken| {
                path == broken
                    || path
                        .strip_prefix(broken.as_str())
                        .is_some_and(|rest| rest.starts_with('.'))
                    || broken
                        .strip_prefix(path)
                        .is_some_and(|rest| rest.starts_with('.'))
            })
        });
        if aside {
            return;
        }
        if field == "suffix" && self.source.suffix.is_some() {
            problem.place = Place::Option("--suffix");
            self.problems.push(problem);
            return;
        }
        let at = about().find_map(|path| self.positions.get(path).copied());
        if !self.positions.contains_key(&field)
            && let Some(value) = &mut problem.value
        {
            value.push_str(" by default");
            problem.place = Place::Default;
        }
        self.add(problem, at);
    }
}

fn join(prefix: &str, key: &str) -> String {
    if prefix.is_empty() {
        key.to_owned()
    } else {
        format!("{prefix}.{key}")
    }
}

/// A setting of that name in another table.
fn elsewhere(name: &str) -> Option<&'static str> {
    settings::SETTINGS
        .iter()
        .map(|setting| setting.path)
        .find(|path| path.rsplit('.').next() == Some(name))
}

/// A value as it stands in a file.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Table(_) => "a table".into(),
        Value::Array(_) => "a list".into(),
        other => other.to_string(),
    }
}

/// The value in its shape; otherwise what it must be, and what to write.
fn read(shape: Shape, value: &Value) -> Result<Json, (String, String)> {
    match (shape, value) {
        (Shape::Text, Value::String(text)) => Ok(json!(text)),
        (Shape::Text, Value::Table(_) | Value::Array(_)) => {
            Err(("it must be text".into(), "write one text in quotes".into()))
        }
        (Shape::Text, other) => Err(("it must be text".into(), format!("write \"{other}\""))),
        (Shape::Switch, Value::Boolean(on)) => Ok(json!(on)),
        (Shape::Switch, _) => Err((
            "it must be a switch".into(),
            "write true or false, without quotes".into(),
        )),
        (Shape::Number, Value::Integer(number)) => Ok(json!(*number as f64)),
        (Shape::Number, Value::Float(number)) if number.is_finite() => Ok(json!(number)),
        (Shape::Number, _) => Err((
            "it must be a number".into(),
            "write it without quotes: 8 or 0.5".into(),
        )),
        (Shape::Whole(..), Value::Integer(number)) => match rules::out_of_range(shape, &json!(number)) {
            None => Ok(json!(number)),
            Some(problem) => Err(problem),
        },
        (Shape::Whole(least, most), _) => Err((
            "it must be a whole number".into(),
            format!("write a number from {least} to {most}, without quotes"),
        )),
        (Shape::Word(_), Value::String(word)) => match rules::out_of_range(shape, &json!(word)) {
            None => Ok(json!(word)),
            Some(problem) => Err(problem),
        },
        (Shape::Word(words), _) => Err((
            "it must be one of a few words".into(),
            format!("write {}", rules::quoted(words)),
        )),
        (Shape::Windows(_), Value::Array(windows)) => {
            let windows = windows_of(windows)?;
            match rules::out_of_range(shape, &windows) {
                None => Ok(windows),
                Some(problem) => Err(problem),
            }
        }
        (Shape::Windows(_), _) => Err((
            "it must be a list of windows of the week".into(),
            "write [\"Sat:20:30-Sat:21:30\"], in UTC".into(),
        )),
        (Shape::Texts, _) => Err((
            "it must be a table of texts".into(),
            "write `[tags]` on a line of its own, and below it lines like Team = \"payments\"".into(),
        )),
    }
}

/// Windows of the week, or what is wrong with the first bad one.
fn windows_of(values: &[Value]) -> Result<Json, (String, String)> {
    let mut windows = Vec::new();
    for value in values {
        let Value::String(text) = value else {
            return Err((
                format!("{} is no window of the week", shown(value)),
                "write each in quotes: \"Sat:20:30-Sat:21:30\", in UTC".into(),
            ));
        };
        let window: Window = text.parse().map_err(|refused: NoWindow| {
            (
                refused.to_string(),
                "write it like \"Sat:20:30-Sat:21:30\", in UTC".to_owned(),
            )
        })?;
        windows.push(json!(window));
    }
    Ok(Json::Array(windows))
}

/// Sets a value in the tree, making the tables on its way.
fn set(json: &mut Json, path: &str, value: Json) {
    let mut place = json;
    for key in path.split('.') {
        if !place.is_object() {
            *place = json!({});
        }
        place = &mut place[key];
    }
    *place = value;
}
