-- The requests of traffic.py, for wrk. The plan (a Lua file) is the first argument after `--`.

local plan, number, clocks = nil, -1, {}
local threads = {}

local function clock(n)
    local text = clocks[n]
    if not text then
        text = os.date("!%Y-%m-%dT%H:%M:%S.000Z", plan.epoch + n * plan.step)
        clocks[n] = text
    end
    return text
end

local function event(person, n)
    local which = person + n
    local what
    if which % plan.plain_every == 0 then
        what = plan.others[math.floor(which / plan.plain_every) % #plan.others + 1]
    else
        what = plan.places[(person * plan.apart + n) % #plan.places + 1]
    end
    return string.format(plan.event, plan.run, person, n, person, clock(n), what, person)
end

function setup(thread)
    table.insert(threads, thread)
end

function init(args)
    plan = dofile(args[1])
end

function request()
    number = number + 1
    requested = number  -- global: `done` reads it
    local person = number % plan.people
    local first = plan.first + math.floor(number / plan.people) * plan.events
    local body
    if plan.events == 1 then
        body = event(person, first):sub(1, -2) .. ',"sentAt":"' .. clock(first) .. '"}'
    else
        local texts = {}
        for n = first, first + plan.events - 1 do
            texts[#texts + 1] = event(person, n)
        end
        local sent_at = clock(first + plan.events - 1)
        body = '{"batch":[' .. table.concat(texts, ",") .. '],"sentAt":"' .. sent_at .. '"}'
    end
    return plan.head .. #body .. "\r\n\r\n" .. body
end

function done(summary, latency)
    local requested = threads[1]:get("requested")
    local errors = summary.errors
    io.write(string.format(
        '{"answered":%d,"requested":%d,"not_ok":%d,"faults":%d,"seconds":%.6f,"p50_ms":%.3f,"p99_ms":%.3f}\n',
        summary.requests - errors.status, requested, errors.status,
        errors.connect + errors.read + errors.write + errors.timeout,
        summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
