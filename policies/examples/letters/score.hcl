# Two machines write to each other: the smallest pipeline that goes out and comes back (the README plays it).
score "letters" {
  version  = "1.0.0"
  language = 1
  why      = "A writer sends a letter to every reader, and gets each one's answer"
}

role "writer" { when = tag.kind == "writer" }
role "reader" { when = tag.kind == "reader" }

part "write" {
  why  = "Where somebody edits: letter.txt in the writer's work folder"
  role = "writer"

  file "letter" {
    path = "letter.txt"
    lines { present = ["Dear all, how are you? ${node.name}"] }
  }

  artifact "letter" {
    from  = "letter.txt"
    needs = [file.letter]
  }

  want "answers" {
    name  = "answer/*"
    from  = "reader"
    place = "answers/${artifact.publisher}.txt"
  }
}

part "read" {
  why  = "Take the letter in, leave an answer in the outbox"
  role = "reader"

  want "letter" {
    name  = "letter"
    from  = "writer"
    place = "inbox/letter.txt"
  }

  file "answer" {
    path  = "answer.txt"
    copy  = "inbox/letter.txt"
    needs = [want.letter]
    lines { present = ["We are fine, thank you. ${node.name}"] }
  }

  artifact "answer" {
    name  = "answer/${node.name}"
    from  = "answer.txt"
    needs = [file.answer]
  }
}

access "mesh" {
  allow "publish" {
    names = ["letter"]
    roles = ["writer"]
  }
  allow "publish" {
    names = ["answer/${publisher.name}"]
    roles = ["reader"]
  }
  allow "pull" {
    names = ["**"]
    roles = ["writer", "reader"]
  }
}
