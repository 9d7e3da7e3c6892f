//! Lists of what a server offers, rendered once, in pages.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::{discover::members, error::McpError};

/// One list: the same for everybody and in every era, as long as the server runs.
pub(super) struct List {
    /// The members of each page's result. At least one page.
    pages: Vec<String>,
}

impl List {
    /// `entries` under the member `key`, at most `size` on a page.
    pub(super) fn new(key: &str, entries: &[Value], size: usize) -> Self {
        let mut chunks: Vec<&[Value]> = entries.chunks(size.max(1)).collect();
        if chunks.is_empty() {
            chunks.push(&[]);
        }
        let last = chunks.len();
        let page = |(number, entries): (usize, &&[Value])| {
            let mut page = json!({ key: entries });
            if number + 1 < last {
                page["nextCursor"] = json!(cursor(number + 1));
            }
            members(&page)
        };
        Self { pages: chunks.iter().enumerate().map(page).collect() }
    }

    /// The members of the page that a cursor names; without one, of the first.
    pub(super) fn page(&self, asked: Option<Cow<'_, str>>) -> Result<&str, McpError> {
        let Some(asked) = asked else { return Ok(&self.pages[0]) };
        let named = |(number, _): &(usize, &String)| *number > 0 && cursor(*number) == asked;
        let page = self.pages.iter().enumerate().find(named);
        page.map(|(_, page)| &**page).ok_or(McpError::InvalidParams("unknown cursor"))
    }
}

/// What names a page. It holds across replicas: all of them offer the same.
fn cursor(page: usize) -> String {
    format!("page-{}", page + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(members: &str) -> Value {
        serde_json::from_str(&format!("{{{members}}}")).unwrap()
    }

    #[test]
    fn pages_lead_to_each_other_and_the_last_one_to_none() {
        let entries: Vec<Value> = (0..5).map(|number| json!({ "name": number })).collect();
        let list = List::new("tools", &entries, 2);
        let (mut seen, mut cursor) = (Vec::new(), None);
        loop {
            let page = read(list.page(cursor).unwrap());
            let tools = page["tools"].as_array().unwrap();
            assert!(tools.len() <= 2);
            seen.extend(tools.clone());
            match page.get("nextCursor") {
                Some(next) => cursor = Some(Cow::Owned(next.as_str().unwrap().to_owned())),
                None => break,
            }
        }
        assert_eq!(seen, entries);
    }

    #[test]
    fn a_cursor_that_was_not_given_out_is_refused() {
        let list = List::new("tools", &[json!({}), json!({})], 1);
        for unknown in ["", "page-0", "page-1", "page-3", "2"] {
            assert!(list.page(Some(unknown.into())).is_err(), "{unknown:?}");
        }
        assert_eq!(read(List::new("tools", &[], 10).page(None).unwrap()), json!({ "tools": [] }));
    }
}
