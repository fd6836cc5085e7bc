# Turns JSON or simple YAML into lines "path/to/key<TAB>value", lists counted from 0.
# Understood: JSON, flow style on one line, block maps and lists of scalars or maps,
# block scalars (| and >). Not understood: anchors, flow style over several lines of a
# block document. A line end inside a value is printed as a byte 1, so that a value
# stays a line. Quiet on bad input: what cannot be read is not printed.

{ lines[NR] = $0; if ($0 !~ /^[ \t]*(#|---|$)/ && first == "") first = $0 }

END {
    if (first ~ /^[ \t]*[{\[]/) {
        for (i = 1; i <= NR; i++) if (lines[i] !~ /^[ \t]*#/) text = text lines[i] "\n"
        flow("", token())
    } else {
        for (i = 1; i <= NR; i++) {
            if (in_scalar && goes_on(lines[i])) continue
            if (lines[i] !~ /^[ \t]*(#|---|$)/) block(lines[i])
        }
        end_scalar()
    }
}

function join(path, key) { return path == "" ? key : path "/" key }

function plain(word) {
    if (word ~ /^".*"$/) {
        word = substr(word, 2, length(word) - 2)
        # A backslash that stands for itself must not join with what follows.
        gsub(/\\\\/, "\002", word); gsub(/\\n/, "\001", word); gsub(/\\[rt]/, " ", word)
        gsub(/\\\//, "/", word); gsub(/\\"/, "\"", word); gsub(/\002/, "\\", word)
    } else if (word ~ /^'.*'$/) {
        word = substr(word, 2, length(word) - 2)
    } else {
        sub(/[ \t]+#.*$/, "", word); sub(/[ \t\r\n]+$/, "", word)
    }
    return word
}

# Takes the next word or sign off `text`.
function token(    word, colon) {
    sub(/^[ \t\r\n]+/, "", text)
    if (text == "") return ""
    if (match(text, /^"([^"\\]|\\.)*"/) || match(text, /^'[^']*'/) || match(text, /^[][{},:]/)) {
        word = substr(text, 1, RLENGTH)
    } else {
        match(text, /^[^][{},]+/)
        word = substr(text, 1, RLENGTH)
        if (colon = match(word, /:([ \t]|$)/)) word = substr(word, 1, colon - 1)
    }
    text = substr(text, length(word) + 1)
    return word
}

function flow(path, word,    key, count) {
    if (word == "{") {
        while ((key = token()) != "}" && key != "") {
            if (key == ",") continue
            token()
            flow(join(path, plain(key)), token())
        }
    } else if (word == "[") {
        count = 0
        while ((word = token()) != "]" && word != "") if (word != ",") flow(path "/" count++, word)
    } else if (word != "") {
        print path "\t" plain(word)
    }
}

function put(path, value) {
    if (value ~ /^[|>][-+0-9]*$/) {
        in_scalar = 1; scalar = path; scalar_at = at[depth]; margin = -1; body = ""
        is_folded = value ~ /^>/
    } else if (value ~ /^[{\[]/) { text = value; flow(path, token()) }
    else print path "\t" plain(value)
}

# Takes a line of a block scalar: whatever is indented deeper than its key.
function goes_on(line,    indent) {
    match(line, /^ */); indent = RLENGTH
    if (line ~ /^[ \t\r]*$/) { body = body "\001"; return 1 }
    if (indent <= scalar_at) { end_scalar(); return 0 }
    if (margin < 0) margin = indent
    line = substr(line, margin + 1); sub(/\r$/, "", line); gsub(/\t/, " ", line)
    body = body line "\001"
    return 1
}

function end_scalar() {
    if (!in_scalar) return
    in_scalar = 0
    sub(/\001+$/, "", body)
    if (is_folded) gsub(/\001/, " ", body)
    print scalar "\t" body
}

# One line of a block document; `depth` open maps and list items, each with its
# indentation, its path, and whether it is a list item.
function block(line,    indent, path, dash) {
    match(line, /^ */); indent = RLENGTH
    line = substr(line, indent + 1); sub(/[ \t\r]+$/, "", line)
    dash = line ~ /^-([ \t]|$)/
    while (depth && (at[depth] > indent || (at[depth] == indent && (item[depth] || !dash)))) depth--
    path = depth ? paths[depth] : ""
    if (dash) {
        path = path "/" (counts[path] + 0); counts[paths[depth]]++
        depth++; at[depth] = indent; paths[depth] = path; item[depth] = 1
        match(line, /^-[ \t]*/); indent += RLENGTH; line = substr(line, RLENGTH + 1)
        if (line == "") return
        if (line ~ /^["'{\[]/ || line !~ /^[^ \t:]+:([ \t]|$)/) { put(path, line); return }
    }
    if (!match(line, /:([ \t]|$)/)) return
    path = join(path, plain(substr(line, 1, RSTART - 1)))
    line = substr(line, RSTART + 1); sub(/^[ \t]+/, "", line)
    depth++; at[depth] = indent; paths[depth] = path; item[depth] = 0
    if (line != "" && line !~ /^#/) put(path, line)
}
