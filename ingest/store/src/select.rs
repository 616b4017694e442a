//! Which series there are: by matchers, and the names and values of their labels. I/O.

use std::collections::BTreeSet;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Params, Value};
use understudy_model::{GroupId, Labels, SeriesId, Tenant};

use crate::catalogue::{cut_name, cut_value, decode_labels, tenant_value};
use crate::matcher::{Matcher, Op};
use crate::read::{ReadError, failed};
use crate::schema::{NAME_BYTES, VALUE_BYTES};

/// The most conditions that are handed to MySQL; the others are checked here.
const JOINS: usize = 8;
/// The most values of one label that a statement lists.
const VALUES: usize = 1000;

/// One series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// Its id, which names it together with the tenant.
    pub id: SeriesId,
    /// Its group.
    pub group: GroupId,
    /// Its labels.
    pub labels: Labels,
}

/// What a search is about to keep in memory.
#[derive(Clone, Copy, Debug)]
pub enum Kept<'a> {
    /// A series with these labels.
    Series(&'a Labels),
    /// The name of a label, or a value.
    Text(&'a [u8]),
}

/// Told of each thing that a search is about to keep; its error ends the search.
pub type Keep<'a> = dyn FnMut(Kept<'_>) -> Result<(), ReadError> + Send + 'a;

/// The series of a tenant that fulfil all matchers, in order of their ids; an error when they are more than `most`.
pub async fn matching_series(
    conn: &mut Conn,
    tenant: &Tenant,
    matchers: &[Matcher],
    most: usize,
    keep: &mut Keep<'_>,
) -> Result<Vec<Series>, ReadError> {
    let mut found: Vec<Series> = Vec::new();
    visit(conn, tenant, &matchers.iter().collect::<Vec<_>>(), most, keep, |series, keep| {
        keep(Kept::Series(&series.labels))?;
        found.push(series);
        Ok(())
    })
    .await?;
    found.sort_by_key(|series| series.id);
    found.dedup_by_key(|series| series.id);
    Ok(found)
}

/// The names of the labels of all series that fulfil all matchers, sorted.
pub async fn label_names(
    conn: &mut Conn,
    tenant: &Tenant,
    matchers: &[Matcher],
    most: usize,
    keep: &mut Keep<'_>,
) -> Result<BTreeSet<String>, ReadError> {
    if matchers.is_empty() {
        let sql = "SELECT DISTINCT name FROM `store`.`series_label` WHERE tenant = ?";
        let mut names = Vec::new();
        texts(conn, "list label names", sql, vec![tenant_value(tenant)], |name| take(&mut names, name, keep)).await?;
        if names.iter().all(|name| name.len() < NAME_BYTES) {
            return names.into_iter().map(text).collect();
        }
    }
    let mut names = BTreeSet::new();
    visit(conn, tenant, &matchers.iter().collect::<Vec<_>>(), most, keep, |series, keep| {
        series.labels.iter().try_for_each(|(name, _)| take_once(&mut names, name, keep))
    })
    .await?;
    Ok(names)
}

/// The values that a label has among the series that fulfil all matchers, sorted.
pub async fn label_values(
    conn: &mut Conn,
    tenant: &Tenant,
    name: &str,
    matchers: &[Matcher],
    most: usize,
    keep: &mut Keep<'_>,
) -> Result<BTreeSet<String>, ReadError> {
    if matchers.is_empty() && name.len() < NAME_BYTES {
        let mut values = Vec::new();
        values_of(conn, tenant, name, |value| take(&mut values, value, keep)).await?;
        if values.iter().all(|value| value.len() < VALUE_BYTES) {
            return values.into_iter().map(text).collect();
        }
    }
    let has_the_label = Matcher::not_equal(name, "");
    let matchers: Vec<&Matcher> = matchers.iter().chain([&has_the_label]).collect();
    let mut values = BTreeSet::new();
    visit(conn, tenant, &matchers, most, keep, |series, keep| match series.labels.get(name) {
        Some(value) => take_once(&mut values, value, keep),
        None => Ok(()),
    })
    .await?;
    Ok(values)
}

/// Gives each series that fulfils all matchers to `each`, some perhaps twice; an error when they are more than `most`.
async fn visit(
    conn: &mut Conn,
    tenant: &Tenant,
    matchers: &[&Matcher],
    most: usize,
    keep: &mut Keep<'_>,
    mut each: impl FnMut(Series, &mut Keep<'_>) -> Result<(), ReadError> + Send,
) -> Result<(), ReadError> {
    let mut count = 0;
    for (sql, params) in statements(conn, tenant, matchers, keep).await? {
        let mut result = match conn.exec_iter(sql, Params::Positional(params)).await.map_err(failed("find series")) {
            Ok(result) => result,
            // Nothing was ever stored here.
            Err(ReadError::NotThere) => return Ok(()),
            Err(e) => return Err(e),
        };
        while let Some(row) = result.next().await.map_err(failed("find series"))? {
            let (id, group, labels): (Vec<u8>, Vec<u8>, Vec<u8>) =
                mysql_async::from_row_opt(row).map_err(|e| ReadError::Damaged(e.to_string()))?;
            let labels = decode_labels(&labels).map_err(|e| ReadError::Damaged(e.to_string()))?;
            if matchers.iter().all(|matcher| matcher.accepts(&labels)) {
                if count == most {
                    return Err(ReadError::TooMany { what: "series", most });
                }
                count += 1;
                each(Series { id: SeriesId(id16(id)?), group: GroupId(id16(group)?), labels }, keep)?;
            }
        }
    }
    Ok(())
}

fn take(texts: &mut Vec<Vec<u8>>, text: Vec<u8>, keep: &mut Keep<'_>) -> Result<(), ReadError> {
    keep(Kept::Text(&text))?;
    texts.push(text);
    Ok(())
}

fn take_once(texts: &mut BTreeSet<String>, text: &str, keep: &mut Keep<'_>) -> Result<(), ReadError> {
    if !texts.contains(text) {
        keep(Kept::Text(text.as_bytes()))?;
        texts.insert(text.to_owned());
    }
    Ok(())
}

/// What to ask MySQL so that the answers hold every series that can match. Equality is a point in the index and narrows most; without
/// one the values of a label are read and judged here; without any that needs a label all series of the tenant are read.
async fn statements(
    conn: &mut Conn,
    tenant: &Tenant,
    matchers: &[&Matcher],
    keep: &mut Keep<'_>,
) -> Result<Vec<(String, Vec<Value>)>, ReadError> {
    let equals: Vec<(&str, &str)> = matchers
        .iter()
        .filter(|matcher| matcher.needs_label())
        .filter_map(
            |matcher| if let Op::Equal(value) = matcher.op() { Some((matcher.name(), value.as_str())) } else { None },
        )
        .take(JOINS)
        .collect();
    if !equals.is_empty() {
        return Ok(vec![by_equality(tenant, &equals)]);
    }
    let Some(matcher) = matchers.iter().find(|matcher| matcher.needs_label()) else {
        let sql = "SELECT series_id, group_id, labels FROM `store`.`series` WHERE tenant = ?".to_owned();
        return Ok(vec![(sql, vec![tenant_value(tenant)])]);
    };
    // A value that fills its column may be longer, and a name that does may be another's: both are judged by the whole labels later.
    let cut = matcher.name().len() >= NAME_BYTES;
    let mut wanted = Vec::new();
    let choose = |value: Vec<u8>| {
        let is_wanted = cut
            || value.len() >= VALUE_BYTES
            || std::str::from_utf8(&value).is_ok_and(|value| matcher.accepts_value(value));
        if is_wanted { take(&mut wanted, value, keep) } else { Ok(()) }
    };
    values_of(conn, tenant, matcher.name(), choose).await?;
    Ok(wanted.chunks(VALUES).map(|values| by_values(tenant, matcher.name(), values)).collect())
}

fn by_equality(tenant: &Tenant, equals: &[(&str, &str)]) -> (String, Vec<Value>) {
    let mut sql = "SELECT s.series_id, s.group_id, s.labels FROM `store`.`series` s".to_owned();
    let mut params = Vec::new();
    for (index, (name, value)) in equals.iter().enumerate() {
        sql.push_str(&format!(
            " JOIN `store`.`series_label` l{index} ON l{index}.tenant = ? AND l{index}.name = ? \
             AND l{index}.value = ? AND l{index}.series_id = s.series_id"
        ));
        params.push(tenant_value(tenant));
        params.push(Value::Bytes(cut_name(name).to_vec()));
        params.push(Value::Bytes(cut_value(value).to_vec()));
    }
    sql.push_str(" WHERE s.tenant = ?");
    params.push(tenant_value(tenant));
    (sql, params)
}

fn by_values(tenant: &Tenant, name: &str, values: &[Vec<u8>]) -> (String, Vec<Value>) {
    let marks = vec!["?"; values.len()].join(",");
    let sql = format!(
        "SELECT s.series_id, s.group_id, s.labels FROM `store`.`series_label` l \
         JOIN `store`.`series` s ON s.tenant = l.tenant AND s.series_id = l.series_id \
         WHERE l.tenant = ? AND l.name = ? AND l.value IN ({marks})"
    );
    let mut params = vec![tenant_value(tenant), Value::Bytes(cut_name(name).to_vec())];
    params.extend(values.iter().cloned().map(Value::Bytes));
    (sql, params)
}

async fn values_of(
    conn: &mut Conn,
    tenant: &Tenant,
    name: &str,
    each: impl FnMut(Vec<u8>) -> Result<(), ReadError> + Send,
) -> Result<(), ReadError> {
    let sql = "SELECT DISTINCT value FROM `store`.`series_label` WHERE tenant = ? AND name = ?";
    let params = vec![tenant_value(tenant), Value::Bytes(cut_name(name).to_vec())];
    texts(conn, "list label values", sql, params, each).await
}

/// Gives the one column of each row to `each`.
async fn texts(
    conn: &mut Conn,
    step: &'static str,
    sql: &str,
    params: Vec<Value>,
    mut each: impl FnMut(Vec<u8>) -> Result<(), ReadError> + Send,
) -> Result<(), ReadError> {
    let mut rows = match conn.exec_iter(sql, Params::Positional(params)).await.map_err(failed(step)) {
        Ok(rows) => rows,
        Err(ReadError::NotThere) => return Ok(()),
        Err(e) => return Err(e),
    };
    while let Some(row) = rows.next().await.map_err(failed(step))? {
        each(mysql_async::from_row_opt(row).map_err(|e| ReadError::Damaged(e.to_string()))?)?;
    }
    Ok(())
}

fn text(bytes: Vec<u8>) -> Result<String, ReadError> {
    String::from_utf8(bytes).map_err(|e| ReadError::Damaged(e.to_string()))
}

fn id16(bytes: Vec<u8>) -> Result<[u8; 16], ReadError> {
    bytes.try_into().map_err(|_| ReadError::Damaged("an id has not 16 bytes".to_owned()))
}
