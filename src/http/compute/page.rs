//! Paging: `limit`, `offset` and `marker`, as the guide and Nova have them.

use axum::{extract::Query, http::Uri};
use schemars::JsonSchema;
use uuid::Uuid;

use super::fault::Fault;

/// The most items of one answer.
const MAX: usize = 1000;

/// Which part of a list is wanted.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
pub(super) struct Page {
    /// At most so many; none and too many mean 1000.
    #[schemars(default)]
    pub(super) limit: usize,
    /// Without so many at the beginning.
    #[schemars(default)]
    offset: usize,
    /// Only what follows the item with this id. An unknown one is 404 in 1.1, and else 400.
    marker: Option<Box<str>>,
}

impl Page {
    /// # Errors
    /// A number that is none, or negative.
    pub(super) fn of_request(uri: &Uri) -> Result<Self, Fault> {
        let mut page = Self { limit: MAX, offset: 0, marker: None };
        if uri.query().is_none() {
            return Ok(page);
        }
        let Query(parameters) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|_| Fault::bad_request("The query of the URI is malformed."))?;
        for (name, value) in parameters {
            match &*name {
                "limit" => page.limit = number("limit", &value)?,
                "offset" => page.offset = number("offset", &value)?,
                "marker" => page.marker = Some(value.into()),
                _ => {}
            }
        }
        if page.limit == 0 || page.limit > MAX {
            page.limit = MAX;
        }
        Ok(page)
    }

    /// That part of the items, and whether more of them follow.
    ///
    /// # Errors
    /// No item has the marker's id; `unknown` makes the fault.
    pub(super) fn of<'a, T>(
        &self,
        items: &'a [T],
        id: impl Fn(&T) -> Uuid,
        unknown: impl FnOnce(String) -> Fault,
    ) -> Result<(&'a [T], bool), Fault> {
        let after = match &self.marker {
            None => 0,
            Some(marker) => Uuid::try_parse(marker)
                .ok()
                .and_then(|marker| items.iter().rposition(|item| id(item) == marker))
                .map(|position| position + 1)
                .ok_or_else(|| unknown(format!("The marker {marker} is not the id of an item.")))?,
        };
        let items = items[after..].get(self.offset..).unwrap_or_default();
        Ok(items.split_at_checked(self.limit).map_or((items, false), |(page, rest)| (page, !rest.is_empty())))
    }
}

/// A number that is not negative. One that is too large for the type is larger than any list.
fn number(name: &str, text: &str) -> Result<usize, Fault> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Fault::bad_request(format!("The parameter {name} must be an integer that is not negative.")));
    }
    Ok(text.parse().unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(query: &str) -> Result<Page, Fault> {
        Page::of_request(&format!("/x?{query}").parse().unwrap())
    }

    /// What is shown of the items 1 to 5, and whether more follow.
    fn shown(query: &str) -> (Vec<u128>, bool) {
        let items: Vec<_> = (1..=5).map(Uuid::from_u128).collect();
        let (shown, more) = page(query).unwrap().of(&items, |id| *id, Fault::not_found).unwrap();
        (shown.iter().map(|id| id.as_u128()).collect(), more)
    }

    #[test]
    fn a_page_begins_after_the_marker_and_the_offset_and_ends_at_the_limit() {
        let two = Uuid::from_u128(2);
        for (query, expected) in [
            ("", (vec![1, 2, 3, 4, 5], false)),
            ("limit=2", (vec![1, 2], true)),
            ("limit=5", (vec![1, 2, 3, 4, 5], false)),
            ("limit=2&offset=3", (vec![4, 5], false)),
            ("offset=9", (vec![], false)),
            (&format!("marker={two}&limit=2"), (vec![3, 4], true)),
            (&format!("marker={}&offset=1", two.simple()), (vec![4, 5], false)),
            (&format!("marker={}", Uuid::from_u128(5)), (vec![], false)),
        ] {
            assert_eq!(shown(query), expected, "{query}");
        }
    }

    #[test]
    fn no_limit_nought_and_too_much_mean_the_maximum() {
        for query in ["", "limit=0", "limit=1001", "limit=99999999999999999999999", "other=1"] {
            assert_eq!(page(query).unwrap().limit, MAX, "{query}");
        }
        assert_eq!(page("limit=1000").unwrap().limit, 1000);
    }
}
