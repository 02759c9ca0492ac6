//! Which user and groups a container's process has, by the container's wishes, the image's, and the image's
//! own passwd and group files.

use crate::cri::{Error, LinuxContainerSecurityContext, Result, SupplementalGroupsPolicy};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, the first one included, sorted.
    pub groups: Vec<u32>,
    pub home: String,
}

struct Passwd<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// `image_user` is `user[:group]`, by name or number. `read` gives a file of the image.
pub fn resolve(
    context: &LinuxContainerSecurityContext,
    image_user: &str,
    read: impl Fn(&str) -> Option<Vec<u8>>,
) -> Result<User> {
    let text =
        |path: &str| read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let (passwd, groups) = (text("/etc/passwd"), text("/etc/group"));
    let wanted = wanted(context, image_user)?;
    let (user, group) =
        wanted.split_once(':').map_or((wanted.as_str(), None), |(user, group)| (user, Some(group)));
    let entry = find_user(&passwd, user);
    let (uid, mut gid) = match (&entry, user) {
        (Some(entry), _) => (entry.uid, entry.gid),
        (None, "") => (0, 0),
        (None, user) => match user.parse() {
            Ok(uid) => (uid, 0),
            Err(_) => {
                return Err(Error::InvalidArgument(format!(
                    "unable to find user {user}: no matching entries in passwd file"
                )));
            }
        },
    };
    if let Some(group) = group {
        gid = find_group(&groups, group)?;
    }
    let mut all: Vec<u32> = vec![gid];
    if context.supplemental_groups_policy == SupplementalGroupsPolicy::Merge
        && let Some(entry) = &entry
    {
        all.extend(groups_of(&groups, entry.name));
    }
    for group in &context.supplemental_groups {
        all.push(
            u32::try_from(*group).map_err(|_| Error::InvalidArgument(format!("invalid group {group}")))?,
        );
    }
    all.sort_unstable();
    all.dedup();
    let home = entry.map(|entry| entry.home.to_owned()).filter(|home| !home.is_empty());
    Ok(User { uid, gid, groups: all, home: home.unwrap_or_else(|| "/".to_owned()) })
}

fn wanted(context: &LinuxContainerSecurityContext, image_user: &str) -> Result<String> {
    let user = match (context.run_as_user, context.run_as_username.as_str()) {
        (Some(uid), _) => uid.to_string(),
        (None, "") => String::new(),
        (None, name) => name.to_owned(),
    };
    match (user.as_str(), context.run_as_group) {
        ("", Some(gid)) => Err(Error::InvalidArgument(format!("user group {gid} is specified without user"))),
        ("", None) => Ok(image_user.to_owned()),
        (user, Some(gid)) => Ok(format!("{user}:{gid}")),
        (user, None) => Ok(user.to_owned()),
    }
}

/// By name, else by number.
fn find_user<'a>(passwd: &'a str, user: &str) -> Option<Passwd<'a>> {
    let user = if user.is_empty() { "0" } else { user };
    let number = user.parse::<u32>().ok();
    let entries = || {
        passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            Some(Passwd { name, uid, gid, home: fields.nth(1).unwrap_or("") })
        })
    };
    entries().find(|entry| entry.name == user).or_else(|| entries().find(|entry| Some(entry.uid) == number))
}

fn group_fields(line: &str) -> Option<(&str, u32, &str)> {
    let mut fields = line.split(':');
    let name = fields.next()?;
    Some((name, fields.nth(1)?.parse().ok()?, fields.next().unwrap_or("")))
}

fn find_group(groups: &str, group: &str) -> Result<u32> {
    let found =
        groups.lines().filter_map(group_fields).find(|(name, ..)| *name == group).map(|(_, gid, _)| gid);
    found.or_else(|| group.parse().ok()).ok_or_else(|| {
        Error::InvalidArgument(format!("unable to find group {group}: no matching entries in group file"))
    })
}

fn groups_of(groups: &str, user: &str) -> Vec<u32> {
    let member =
        |(_, gid, members): (&str, u32, &str)| members.split(',').any(|member| member == user).then_some(gid);
    groups.lines().filter_map(group_fields).filter_map(member).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> Option<Vec<u8>> {
        match path {
            "/etc/passwd" => {
                Some(b"root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/var/www:/bin/false\n".to_vec())
            }
            "/etc/group" => Some(b"root:x:0:\nwww:x:34:\nlogs:x:50:me,web\n".to_vec()),
            _ => None,
        }
    }

    fn with(uid: Option<i64>, gid: Option<i64>, image: &str) -> Result<User> {
        let context =
            LinuxContainerSecurityContext { run_as_user: uid, run_as_group: gid, ..Default::default() };
        resolve(&context, image, file)
    }

    #[test]
    fn users_by_name_number_and_wish() {
        let web = User { uid: 33, gid: 34, groups: vec![34, 50], home: "/var/www".into() };
        assert_eq!(with(None, None, "web").unwrap(), web);
        assert_eq!(with(Some(33), None, "root").unwrap(), web);
        assert_eq!(with(None, None, "").unwrap().home, "/root");
        let unknown = with(Some(1000), None, "").unwrap();
        assert_eq!((unknown.uid, unknown.gid, unknown.home.as_str()), (1000, 0, "/"));
        assert_eq!(with(Some(1000), Some(2000), "").unwrap().gid, 2000);
        assert_eq!(with(None, None, "web:logs").unwrap().gid, 50);
        assert!(
            with(None, None, "nobody")
                .unwrap_err()
                .to_string()
                .contains("no matching entries in passwd file")
        );
        assert!(with(None, Some(5), "").is_err());
    }

    #[test]
    fn strict_ignores_the_images_groups() {
        let context = LinuxContainerSecurityContext {
            run_as_user: Some(33),
            supplemental_groups: vec![7],
            supplemental_groups_policy: SupplementalGroupsPolicy::Strict,
            ..Default::default()
        };
        assert_eq!(resolve(&context, "", file).unwrap().groups, [7, 34]);
    }
}
