# A file made from the live members of a role: whoever serves the web now is balanced to.
score "balance" {
  version  = "1.0.0"
  language = 1
  why      = "Whoever serves the web now gets its share of the load"
}

role "web" { when = tag.tier == "web" }
role "balancer" { when = tag.tier == "edge" }

part "balance" {
  why  = "Whoever serves now is served to"
  role = "balancer"
  when = count("web") > 0

  file "haproxy" {
    path     = "/etc/haproxy/haproxy.cfg"
    validate = ["haproxy", "-c", "-f"]
    content  = <<-CFG
      backend web
      %{for m in members("web")~}
        server ${m.name} ${m.addr}:8080 check
      %{endfor~}
    CFG
  }
}
