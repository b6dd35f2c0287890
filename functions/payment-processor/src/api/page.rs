//! Keyset pagination, newest first. A cursor is the identity of the last item seen; clients treat it as opaque.

use continuity::entry::EntryId;
use serde::Serialize;

use super::problem::Problem;
use crate::command::Invalid;
use crate::limits::PAGE_ITEMS;

/// What part of a list is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Only what comes after this one in the list.
    pub before: Option<EntryId>,
    /// How many items at most.
    pub limit: u32,
}

/// A part of a list.
#[derive(Debug, Serialize)]
pub struct Listed<T> {
    data: Vec<T>,
    next_cursor: Option<String>,
}

impl Page {
    /// Reads `limit` and `cursor`; other parameters are refused.
    pub fn from_query(query: Option<&str>) -> Result<Page, Problem> {
        let mut page = Page {
            before: None,
            limit: PAGE_ITEMS.0,
        };
        for pair in query
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
        {
            match pair.split_once('=').unwrap_or((pair, "")) {
                ("limit", value) => {
                    page.limit = limit(value)
                        .ok_or_else(|| invalid("limit", format!("be a number from 1 to {}", PAGE_ITEMS.1)))?
                }
                ("cursor", value) => {
                    page.before = Some(
                        cursor(value)
                            .ok_or_else(|| invalid("cursor", "be a `next_cursor` of this list".into()))?,
                    )
                }
                _ => {
                    return Err(invalid(
                        "query",
                        "have no parameters but `limit` and `cursor`".into(),
                    ));
                }
            }
        }
        Ok(page)
    }

    /// One more than the page holds, to see whether there is a next one.
    pub fn fetch(self) -> u32 {
        self.limit + 1
    }

    /// Cuts what was fetched to the page.
    pub fn cut<T>(self, mut data: Vec<T>, id: impl Fn(&T) -> EntryId) -> Listed<T> {
        let more = data.len() > self.limit as usize;
        data.truncate(self.limit as usize);
        let next_cursor = data.last().filter(|_| more).map(|last| {
            let id = id(last);
            format!("{}.{}", id.epoch, id.seq)
        });
        Listed { data, next_cursor }
    }
}

fn limit(text: &str) -> Option<u32> {
    text.parse()
        .ok()
        .filter(|limit| (1..=PAGE_ITEMS.1).contains(limit))
}

fn cursor(text: &str) -> Option<EntryId> {
    let (epoch, seq) = text.split_once('.')?;
    let number = |text: &str| {
        text.parse::<i64>()
            .ok()
            .and_then(|number| u64::try_from(number).ok())
    };
    Some(EntryId {
        epoch: number(epoch)?,
        seq: number(seq)?,
    })
}

fn invalid(field: &'static str, must: String) -> Problem {
    Problem::InvalidRequest {
        detail: "A parameter cannot be taken.".to_owned(),
        errors: vec![Invalid { field, must }],
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_a_limit_and_a_cursor_in_range_are_taken() {
        assert_eq!(
            Page::from_query(None).unwrap(),
            Page {
                before: None,
                limit: 50
            }
        );
        let page = Page::from_query(Some("limit=2&cursor=3.17")).unwrap();
        assert_eq!(
            page,
            Page {
                before: Some(EntryId { epoch: 3, seq: 17 }),
                limit: 2
            }
        );
        for query in [
            "limit=0",
            "limit=501",
            "limit=-1",
            "limit=",
            "limit=x",
            "cursor=",
            "cursor=1",
            "cursor=1.2.3",
            "cursor=-1.2",
            "cursor=99999999999999999999.1",
            "sort=asc",
        ] {
            assert!(Page::from_query(Some(query)).is_err(), "{query}");
        }
    }

    #[test]
    fn a_page_names_the_next_only_when_there_is_more() {
        let page = Page {
            before: None,
            limit: 2,
        };
        let id = |seq: &u64| EntryId { epoch: 1, seq: *seq };
        let cut = page.cut(vec![9, 8, 7], id);
        assert_eq!((cut.data, cut.next_cursor.as_deref()), (vec![9, 8], Some("1.8")));
        let cut = page.cut(vec![9, 8], id);
        assert_eq!((cut.data, cut.next_cursor), (vec![9, 8], None));
    }
}
