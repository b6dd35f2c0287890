//! Outputs of resources that do not exist yet: any type of outputs, made of placeholders. A text is `${KEY.FIELD}`, or the value
//! of the field of the same name in the resource's own `Spec`, because that is what it will be: a bucket's name, a role's name.

use serde::de::value::{MapDeserializer, SeqDeserializer, StrDeserializer};
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, Visitor};
use serde_json::{Error, Map, Value};

/// Outputs of the node `key`, whose `Spec` is `spec`.
///
/// # Errors
/// The type is none that can be made of placeholders: an enum whose first variant holds data.
pub(crate) fn outputs<T: DeserializeOwned>(key: &str, spec: &Value) -> Result<T, Error> {
    T::deserialize(Place {
        path: key.to_owned(),
        spec: spec.as_object(),
        known: None,
    })
}

/// Whether a text holds a placeholder: then it is not what AWS will be given.
pub fn is_in(text: &str) -> bool {
    text.contains("${")
}

/// The nodes whose placeholders are in a text, each with the field.
pub fn all_in(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split("${")
        .skip(1)
        .filter_map(|rest| rest.split_once('}')?.0.rsplit_once('.'))
}

/// A place in the outputs that wants a value.
struct Place<'a> {
    path: String,
    /// Of the outputs as a whole.
    spec: Option<&'a Map<String, Value>>,
    known: Option<&'a str>,
}

impl<'a> Place<'a> {
    fn text(&self) -> String {
        self.known
            .map_or_else(|| format!("${{{}}}", self.path), str::to_owned)
    }

    fn field(&self, name: &str) -> Place<'a> {
        Place {
            path: format!("{}.{name}", self.path),
            spec: None,
            known: self.spec.and_then(|spec| spec.get(name)?.as_str()),
        }
    }

    fn elements(&self, count: usize) -> Vec<Place<'a>> {
        let element = || Place {
            path: self.path.clone(),
            spec: None,
            known: None,
        };
        std::iter::repeat_with(element).take(count).collect()
    }
}

impl<'de> IntoDeserializer<'de, Error> for Place<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// The fields of a struct, one after the other.
struct Fields<'a> {
    of: Place<'a>,
    left: std::slice::Iter<'static, &'static str>,
    next: Option<&'static str>,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.next = self.left.next().copied();
        let name = |name: &'static str| seed.deserialize(StrDeserializer::new(name));
        self.next.map(name).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(self.of.field(self.next.unwrap_or_default()))
    }
}

/// Numbers are 1: what is counted or listened on is there.
macro_rules! one {
    ($($method:ident => $visit:ident),*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.$visit(1u8.into())
        })*
    };
}

macro_rules! text {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.visit_string(self.text())
        })*
    };
}

impl<'de> Deserializer<'de> for Place<'_> {
    type Error = Error;

    text!(deserialize_any deserialize_str deserialize_string deserialize_identifier deserialize_ignored_any);
    one!(deserialize_i8 => visit_i16, deserialize_i16 => visit_i16, deserialize_i32 => visit_i32,
        deserialize_i64 => visit_i64, deserialize_i128 => visit_i128, deserialize_u8 => visit_u8,
        deserialize_u16 => visit_u16, deserialize_u32 => visit_u32, deserialize_u64 => visit_u64,
        deserialize_u128 => visit_u128, deserialize_f32 => visit_f32, deserialize_f64 => visit_f64,
        deserialize_char => visit_char);

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_bool(true)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_byte_buf(self.text().into_bytes())
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_tuple(1, visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, count: usize, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(SeqDeserializer::new(self.elements(count).into_iter()))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        count: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_tuple(count, visitor)
    }

    /// Nobody knows the keys.
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(MapDeserializer::new(std::iter::empty::<(String, String)>()))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_map(Fields {
            of: self,
            left: fields.iter(),
            next: None,
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let first = variants.first().copied().unwrap_or_default();
        visitor.visit_enum(StrDeserializer::new(first))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    enum Mood {
        Calm,
        #[allow(dead_code)]
        Loud,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Inner {
        id: String,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Everything {
        name: String,
        arn: String,
        port: i32,
        ratio: f64,
        ready: bool,
        note: Option<String>,
        ids: Vec<String>,
        pair: (u16, char),
        by_zone: BTreeMap<String, String>,
        mood: Mood,
        inner: Inner,
        any: Value,
    }

    #[test]
    fn any_outputs_can_be_made_of_placeholders() {
        let made: Everything = outputs(
            "thing.primary",
            &json!({"name": "thing-primary-dev", "port": "x"}),
        )
        .unwrap();
        let text = |field: &str| format!("${{thing.primary.{field}}}");
        let wanted = Everything {
            name: "thing-primary-dev".into(),
            arn: text("arn"),
            port: 1,
            ratio: 1.0,
            ready: true,
            note: Some(text("note")),
            ids: vec![text("ids")],
            pair: (1, '\u{1}'),
            by_zone: BTreeMap::new(),
            mood: Mood::Calm,
            inner: Inner { id: text("inner.id") },
            any: Value::from(text("any")),
        };
        assert_eq!(made, wanted);
    }

    #[test]
    fn a_placeholder_says_whose_it_is() {
        let text = "arn:x:${role.a.primary.arn}/${vpc.dr.vpc_id} ${open";
        let found: Vec<_> = all_in(text).collect();
        assert_eq!(found, [("role.a.primary", "arn"), ("vpc.dr", "vpc_id")]);
        assert!(is_in(text) && !is_in("$context.requestId"));
    }
}
