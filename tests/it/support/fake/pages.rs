//! Lists in pages: tags and repositories, with `n`, `last` and Link.

use super::exchange::Query;
use super::flow::Answer;
use serde_json::json;

/// One page of sorted names as `field` of a JSON object with `extra` fields beside it.
pub fn page(
    path: &str,
    query: &Query,
    names: Vec<String>,
    limit: usize,
    field: &str,
    extra: &[(&str, &str)],
) -> Answer {
    let Ok(asked) = query.get("n").map_or(Ok(limit), |n| n.parse::<usize>()) else {
        return Answer::error(400, "PAGINATION_NUMBER_INVALID", "n is not a number");
    };
    let count = asked.min(limit);
    let last = query.get("last").unwrap_or_default();
    let mut rest: Vec<String> = names.into_iter().filter(|name| name.as_str() > last).collect();
    let more = rest.len() > count;
    rest.truncate(count);
    let link = rest.last().filter(|_| more).map(|last| format!("<{path}?n={count}&last={last}>; rel=\"next\""));
    let mut value = json!({});
    value[field] = json!(rest);
    for (name, text) in extra {
        value[*name] = json!(text);
    }
    let mut answer = Answer::json(200, &value);
    answer.set_header("link", link);
    answer
}
