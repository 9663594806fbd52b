//! Object stores: S3 and what speaks as it, Google Cloud Storage, Azure.
//!
//! How a bucket is reached is said in the configuration, with the keys of the `object_store` crate (`aws_region`,
//! `aws_endpoint`, `google_service_account`, …); what is not said there is taken from the environment, where the
//! providers' own tools look as well (`AWS_ACCESS_KEY_ID`, …). Without either, a provider's machine answers for itself.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr as _;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::datasource::listing::ListingTableUrl;
use datafusion::execution::SessionState;
use datafusion::execution::object_store::ObjectStoreRegistry;
use futures::TryStreamExt as _;
use object_store::aws::AmazonS3ConfigKey;
use object_store::azure::AzureConfigKey;
use object_store::gcp::GoogleConfigKey;
use object_store::{ObjectStore, parse_url_opts};
use pgwire::error::PgWireResult;
use url::{Position, Url};

use super::{ExternalOptions, Location};
use crate::pgwire::sqlstate;

/// Ways of saying that something is in an object store.
const SCHEMES: [&str; 7] = ["s3", "s3a", "gs", "az", "azure", "abfs", "abfss"];
/// How variables of the environment begin that say how to reach a store.
const PREFIXES: [&str; 3] = ["AWS_", "GOOGLE_", "AZURE_"];

/// How a bucket is reached.
#[derive(Clone, PartialEq, Eq)]
pub struct ObjectStoreOptions {
    /// The bucket, without a prefix in it.
    bucket: Url,
    options: BTreeMap<String, String>,
}

/// Options are secret, some of them.
impl fmt::Debug for ObjectStoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<_> = self.options.keys().collect();
        f.debug_struct("ObjectStoreOptions")
            .field("bucket", &self.bucket.as_str())
            .field("options", &keys)
            .finish()
    }
}

impl ObjectStoreOptions {
    /// `options` for the bucket at `url`.
    ///
    /// # Errors
    /// Says what is wrong: no such kind of store, an option that it does not have, a value that it cannot have.
    pub fn new(url: &str, options: BTreeMap<String, String>) -> std::result::Result<Self, String> {
        let bucket = parse(url)?;
        if !matches!(bucket.path(), "" | "/") {
            return Err(format!("{url} is a place in a bucket, not a bucket"));
        }
        if let Some(key) = options.keys().find(|key| !is_option(bucket.scheme(), key)) {
            return Err(format!("there is no option {key} for {}://", bucket.scheme()));
        }
        let known = Self { bucket: bucket_of(&bucket), options };
        known.store().map(|_| known)
    }

    /// The bucket.
    pub fn bucket(&self) -> &str {
        self.bucket.as_str()
    }

    /// Names of the options.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.options.keys().map(String::as_str)
    }

    fn store(&self) -> std::result::Result<Arc<dyn ObjectStore>, String> {
        let environment = std::env::vars()
            .filter(|(key, _)| PREFIXES.iter().any(|prefix| key.starts_with(prefix)))
            // What tools of a provider know beside is left alone.
            .map(|(key, value)| (key.to_ascii_lowercase(), value));
        let said = self.options.iter().map(|(key, value)| (key.clone(), value.clone()));
        let store = parse_url_opts(&self.bucket, environment.chain(said));
        store.map(|(store, _)| Arc::from(store)).map_err(|error| error.to_string())
    }
}

/// A URL of a place in an object store.
pub(super) fn parse(text: &str) -> std::result::Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{text}: {error}"))?;
    if !SCHEMES.contains(&url.scheme()) {
        return Err(format!(
            "{text}: files are on this machine or at one of {}",
            SCHEMES.join("://, ") + "://"
        ));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(format!("{text} names no bucket"));
    }
    if url.query().is_some() || url.fragment().is_some() || url.password().is_some() {
        return Err(format!(
            "{}: a place has a bucket and a path, nothing more",
            &url[..Position::BeforeHost]
        ));
    }
    Ok(url)
}

/// Whether stores of `scheme` have an option called `key`.
fn is_option(scheme: &str, key: &str) -> bool {
    match scheme {
        "s3" | "s3a" => AmazonS3ConfigKey::from_str(key).is_ok(),
        "gs" => GoogleConfigKey::from_str(key).is_ok(),
        _ => AzureConfigKey::from_str(key).is_ok(),
    }
}

fn bucket_of(url: &Url) -> Url {
    let mut bucket = url.clone();
    bucket.set_path("");
    bucket
}

/// Makes all stores known that `options` name.
pub(super) fn register(options: &ExternalOptions, registry: &Arc<dyn ObjectStoreRegistry>) {
    let places = options.tables.iter().map(|table| &table.location).chain(&options.folders);
    let buckets = places.filter_map(|place| match place {
        Location::Objects(url) => Some(bucket_of(url)),
        Location::Path(_) => None,
    });
    for bucket in buckets {
        let said = options.stores.iter().find(|store| store.bucket == bucket).cloned();
        let store = said.unwrap_or_else(|| ObjectStoreOptions { bucket, options: BTreeMap::new() });
        match store.store() {
            Ok(reached) => drop(registry.register_store(&store.bucket, reached)),
            Err(reason) => tracing::error!(bucket = store.bucket(), reason, "object store cannot be reached"),
        }
    }
}

/// Whether there is an object at `urls` whose name ends with `end`.
///
/// # Errors
/// If a store cannot be asked.
pub(super) async fn are_there(urls: &[ListingTableUrl], end: &str, state: &SessionState) -> Result<bool> {
    for url in urls {
        let store = state.runtime_env().object_store(url)?;
        let mut objects = url.list_all_files(state, store.as_ref(), end).await?;
        if objects.try_next().await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// That `place` of a created table is allowed.
///
/// # Errors
/// 42501 if it is beneath none of `allowed`.
pub(super) fn check_beneath(place: &Url, allowed: &[Location]) -> PgWireResult<()> {
    let beneath = |prefix: &Url| {
        let same_bucket = place[..Position::BeforePath] == prefix[..Position::BeforePath];
        let folder = format!("{}/", prefix.path().trim_end_matches('/'));
        same_bucket && place.path().starts_with(&folder)
    };
    let fits = |location: &Location| matches!(location, Location::Objects(prefix) if beneath(prefix));
    if allowed.iter().any(fits) {
        return Ok(());
    }
    let message = format!(
        "{place}: this place is in no allowed folder; `sql.external_folders` in the configuration names them"
    );
    Err(sqlstate::error("42501", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_allowed_by_whole_segments() {
        let allowed = [Location::parse("s3://lake/public").unwrap(), Location::parse("gs://all").unwrap()];
        for (place, fits) in [
            ("s3://lake/public/a.csv", true),
            ("s3://lake/public/deep/", true),
            ("s3://lake/publicity/a.csv", false),
            ("s3://lake/public/../private/a.csv", false),
            ("s3://lake/public/%2e%2e/private/a.csv", false),
            ("s3://pond/public/a.csv", false),
            ("gs://lake/public/a.csv", false),
            ("gs://all/a.csv", true),
        ] {
            assert_eq!(check_beneath(&parse(place).unwrap(), &allowed).is_ok(), fits, "{place}");
        }
    }

    #[test]
    fn what_is_no_place_is_refused_with_its_reason() {
        for (text, reason) in [
            ("ftp://host/a.csv", "files are on this machine or at one of s3://"),
            ("s3:///a.csv", "names no bucket"),
            ("s3://bucket/a.csv?x=1", "nothing more"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(reason), "{error}");
        }
        let options = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        assert!(ObjectStoreOptions::new("s3://lake/a", BTreeMap::new()).is_err());
        assert!(ObjectStoreOptions::new("s3://lake", options("aws_region", "eu-west-1")).is_ok());
        let error = ObjectStoreOptions::new("s3://lake", options("region_of_aws", "eu-west-1"));
        assert_eq!(error.unwrap_err(), "there is no option region_of_aws for s3://");
    }

    #[test]
    fn secrets_are_not_printed() {
        let options = [("aws_access_key_id", "key"), ("aws_secret_access_key", "hush")];
        let options = BTreeMap::from(options.map(|(key, value)| (key.to_owned(), value.to_owned())));
        let store = ObjectStoreOptions::new("s3://lake", options).unwrap();
        assert!(!format!("{store:?}").contains("hush"));
    }
}
