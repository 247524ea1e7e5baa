//! The images that the pods of a workload use.

use serde_json::{Value, json};

use crate::policy::Finding;
use crate::rules::snippet;
use crate::workload::{Container, Image, Workload, items};

/// An image that a container runs or that a volume mounts.
///
/// <https://kubernetes.io/docs/concepts/storage/volumes/#image>
pub(super) struct UsedImage<'a> {
    pub(super) image: Image<'a>,
    workload: Workload<'a>,
    by: UsedBy<'a>,
}

enum UsedBy<'a> {
    Container(Container<'a>),
    Volume(&'a Value),
}

/// Returns the images of a workload's containers and volumes, without those that are not set.
pub(super) fn used<'a>(workload: &Workload<'a>) -> impl Iterator<Item = UsedImage<'a>> + use<'a> {
    let workload = *workload;
    let of_containers = workload.all_containers().map(|container| (container.image(), UsedBy::Container(container)));
    let volumes = items(&workload.pod_spec()["volumes"]);
    let of_volumes = volumes.map(|volume| {
        let reference = volume["image"]["reference"].as_str().unwrap_or_default();
        (Image::new(reference), UsedBy::Volume(volume))
    });
    let all = of_containers.chain(of_volumes).filter(|(image, _)| !image.text().is_empty());
    all.map(move |(image, by)| UsedImage { image, workload, by })
}

impl UsedImage<'_> {
    /// Starts a finding about the image, with another image as the fix.
    pub(super) fn replace_by(&self, other: &str) -> Finding {
        match &self.by {
            UsedBy::Container(container) => Finding::in_container(container, "image").fix(format!("image: {other}")),
            UsedBy::Volume(volume) => {
                let instead = json!({"volumes": [{"name": volume["name"], "image": {"reference": other}}]});
                Finding::of_volume(&self.workload, volume, "image.reference").fix(snippet(&instead))
            }
        }
    }
}
