//! `innkeeper capacity`: how many more workspaces fit, what they meet first, and what one costs.

use std::path::Path;

use serde_json::Value;

use super::output::{self, Answer};
use super::{CommandError, asking, block_on};
use crate::name::printable;

pub(super) fn run(socket: &Path) -> Result<Answer, CommandError> {
    Ok(Answer::shown(block_on(asking::get(socket, "/api/v1/capacity"))??, |answer| Ok(page(&answer))))
}

fn page(answer: &Value) -> String {
    let mut host = vec![["", "CPUS", "MEMORY", "DISK"].map(str::to_owned)];
    for (name, key) in [("there is", "total"), ("promised", "promised"), ("in use", "used")] {
        let of = &answer[key];
        host.push([name.to_owned(), number(&of["cpu"]), size(&of["memory"]), size(&of["disk"])]);
    }
    let currency = answer["price"]["currency"].as_str().map(printable);
    let heading = ["TEMPLATE", "BY", "CPUS", "MEMORY", "DISK", "MORE", "BOUND BY", "COST"].map(str::to_owned);
    let mut rows = vec![heading];
    for one in answer["templates"].as_array().into_iter().flatten() {
        let name = one["template"].as_str().map(printable).unwrap_or_default();
        for (by, each, fits) in [("limits", "limits", "by_limits"), ("use", "use", "by_use")] {
            let (each, fits) = (&one[each], &one[fits]);
            let cost = fits["cost"].as_f64().map(|cost| format!("{cost:.2} {}", currency.as_deref().unwrap_or_default()));
            rows.push([
                name.clone(),
                by.to_owned(),
                number(&each["cpu"]),
                size(&each["memory"]),
                size(&each["disk"]),
                fits["more"].as_u64().map_or_else(|| "-".to_owned(), |more| more.to_string()),
                fits["bound"].as_str().unwrap_or("-").to_owned(),
                cost.unwrap_or_else(|| "-".to_owned()),
            ]);
        }
    }
    let running = format!("{} run, at most {} at once\n", answer["running"], answer["places"]);
    format!("{running}{}\n{}", output::table(&host), output::table(&rows))
}

fn number(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".to_owned(), |number| format!("{number:.2}"))
}

fn size(value: &Value) -> String {
    const GIB: f64 = (1u64 << 30) as f64;
    value.as_f64().map_or_else(|| "-".to_owned(), |bytes| format!("{:.2} GiB", bytes / GIB))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_page_says_what_is_not_known_too() {
        let answer = json!({
            "total": { "cpu": 8.0, "memory": 34_359_738_368_u64, "disk": 0 }, "promised": { "cpu": 2.0, "memory": 0, "disk": 0 },
            "used": null, "running": 1, "places": 12, "price": { "host": 49.0, "currency": "EUR" },
            "templates": [{
                "template": "default", "limits": { "cpu": 2.0, "memory": 8_589_934_592_u64, "disk": 0 },
                "by_limits": { "more": 3, "bound": "cpu", "share": 0.25, "cost": 12.25 }, "use": null, "by_use": null,
            }],
        });
        let page = page(&answer);
        assert!(page.starts_with("1 run, at most 12 at once\n"), "{page}");
        assert!(page.contains("there is  8.00  32.00 GiB") && page.contains("in use    -"), "{page}");
        assert!(page.contains("default   limits  2.00  8.00 GiB  0.00 GiB  3     cpu       12.25 EUR"), "{page}");
        assert!(page.contains("default   use     -     -         -         -     -         -"), "{page}");
    }
}
