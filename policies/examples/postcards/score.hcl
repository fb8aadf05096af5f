# The pipeline of "Self-Repairing Deployment Pipelines" (Burgess, 2014): meshd demo plays it.
score "postcards" {
  version  = "1.0.0"
  language = 1
  why      = "Children send postcards; the parent ties them with a bow"
}

locals {
  jobs = ["container_1", "container_2", "container_3"]
}

role "parent" { when = tag.kind == "parent" }
role "containers" { when = contains(local.jobs, node.name) }
role "cleanup" { when = tag.cleanup == "yes" }

part "prepare" {
  why  = "The files where people make changes"
  role = "parent"

  file "feed" {
    why      = "One job slip for each child"
    for_each = local.jobs
    path     = "feeds/${each.key}_feed.txt"
    lines { present = ["This is for ${each.key} from ${node.name}"] }
  }

  artifact "feed" {
    for_each = local.jobs
    name     = "feed/${each.key}"
    from     = "feeds/${each.key}_feed.txt"
    needs    = [file.feed]
  }
}

part "children" {
  why  = "Spawn some fledglings"
  role = "parent"

  guest "child" {
    for_each = local.jobs
    state    = role.cleanup ? "absent" : "running"
  }

  report "state" { message = role.cleanup ? "CONTAINERS stopped" : "CONTAINERS running" }
}

part "work" {
  why  = "Pick up files and build something"
  role = "containers"

  process "sshd" {
    why  = "So we can log in and look"
    when = tag.ssh == "yes"
    run  = ["/usr/sbin/sshd", "-D"]
  }

  want "job" {
    name  = "feed/${node.name}"
    from  = "parent"
    place = "job_description.txt"
  }

  file "result" {
    why   = "Do my part and deliver the result for pickup"
    path  = "result_for_pickup.txt"
    copy  = "job_description.txt"
    needs = [want.job]
    lines { present = ["A postcard from sunny ${node.addr} - Thanks, with love ${node.name}"] }
  }

  artifact "postcard" {
    name  = "postcard/${node.name}"
    from  = "result_for_pickup.txt"
    needs = [file.result]
  }
}

part "harvest" {
  why  = "Reap the harvest"
  role = "parent"

  want "replies" {
    for_each = local.jobs
    name     = "postcard/${each.key}"
    from     = "containers"
    place    = "results/reply_from_${each.key}"
  }

  command "package" {
    why     = "Tie it with a bow"
    run     = ["tar", "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "-czf", "package.tgz", "results"]
    inputs  = ["results/*"]
    outputs = ["package.tgz"]
    needs   = [want.replies]
  }

  artifact "package" {
    from  = "package.tgz"
    needs = [command.package]
  }
}

access "mesh" {
  allow "publish" {
    names = ["postcard/${publisher.name}"]
    roles = ["containers"]
  }
  allow "publish" {
    names = ["feed/*", "package"]
    roles = ["parent"]
  }
  allow "pull" {
    names = ["**"]
    roles = ["parent", "containers"]
  }
  allow "admit" {
    names = local.jobs
    roles = ["parent"]
  }
}
