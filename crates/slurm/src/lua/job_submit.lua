
-- The site's own functions. They live in the globals, as they would without ours; those that stand there
-- when this file begins are of a script that runs this one at its end.
local site = { submit = slurm_job_submit, modify = slurm_job_modify }

-- Runs the site's script, if it is another one than before: slurmctld itself looks at this file alone. One
-- that cannot be run changes nothing.
local function read_site()
    local file, problem = io.open(SITE, "rb")
    if not file then
        return problem
    end
    local text = file:read("*a")
    file:close()
    if text == site.text then
        return
    end
    local chunk
    chunk, problem = (loadstring or load)(text, "@" .. SITE)
    if not chunk then
        return problem
    end
    local kept_submit, kept_modify = slurm_job_submit, slurm_job_modify
    slurm_job_submit, slurm_job_modify = nil, nil
    local done, answer = pcall(chunk)
    local submit, modify = slurm_job_submit, slurm_job_modify
    slurm_job_submit, slurm_job_modify = kept_submit, kept_modify
    if not done then
        return answer
    elseif tonumber(answer or 0) ~= slurm.SUCCESS then
        return SITE .. " returned " .. tostring(answer)
    end
    site = { text = text, submit = submit, modify = modify }
end

if SITE then
    local problem = read_site()
    if problem then
        -- As it would be without ours: slurmctld goes on with what it read before.
        error(problem, 0)
    end
end

-- What the site's function says. As in slurmctld itself, one that fails, and an answer that is no number,
-- let the job pass: to the gate.
local function ask_site(name, ...)
    local problem = SITE and read_site()
    if problem then
        slurm.log_error("thiao: %s: what was read before holds: %s", SITE, tostring(problem))
    end
    local run = site[name]
    if not run then
        return slurm.SUCCESS
    end
    local done, answer = pcall(run, ...)
    if not done then
        slurm.log_error("thiao: the site's slurm_job_%s failed: %s", name, tostring(answer))
        return slurm.SUCCESS
    end
    return tonumber(answer) or slurm.SUCCESS
end

-- Slurm's "Invalid partition name specified" and "Invalid generic resource (gres) specification", which Lua
-- has no names for.
local INVALID_PARTITION, INVALID_GRES = 2000, 2072

-- Ends a request with a sentence for its user.
local function refuse(sentence, code)
    error({ sentence = sentence, code = code or slurm.ERROR }, 0)
end

-- Runs one of our functions. One that fails lets nothing pass: without the gate a job would find no capacity.
local function guarded(run, ...)
    local done, problem = pcall(run, ...)
    if done then
        return slurm.SUCCESS
    elseif type(problem) == "table" then
        slurm.log_user("%s", problem.sentence)
        return problem.code
    end
    slurm.log_error("thiao: %s", tostring(problem))
    slurm.log_user("%s", "job_submit.lua of Thiao failed: tell your administrator, slurmctld's log says how")
    return slurm.ERROR
end

-- Whom slurmctld runs as: SlurmUser.
local function own_uid()
    local file = io.open("/proc/self/status")
    local text = file and file:read("*a") or ""
    if file then
        file:close()
    end
    return tonumber(text:match("\nUid:%s*(%d+)")) or 0
end
local slurm_user = own_uid()

-- A list without the items of this name, and whether there were any. Items are as in `gres:gpu:tesla:2`
-- or `name:3`.
local function without(list, name)
    local kept, found = {}, false
    for item in (list or ""):gmatch("[^,;]+") do
        local word = item:gsub("^%s*gres[:/]", ""):match("^%s*([^:=*@%s]*)")
        if word == name then
            found = true
        elseif word ~= "" and word ~= "none" then
            kept[#kept + 1] = item
        end
    end
    return table.concat(kept, ","), found
end

local function with(list, name, item)
    local others = without(list, name)
    return others == "" and item or others .. "," .. item
end

-- Slurm 23.02 taught Lua the names of all errors, writes gres/vm for gres:vm, and takes licences of no part
-- of a heterogeneous job but the first, with which the others start.
local SINCE_23_02 = slurm.ESLURM_INVALID_GRES ~= nil

local function with_vm(list)
    return with(list, VM, (SINCE_23_02 and "gres/" or "gres:") .. VM .. ":1")
end

-- Whether a job is a further part of a heterogeneous one. A job of one part has a number there that is none.
local function is_further_part(job)
    local place = job.het_job_offset
    return place ~= nil and place > 0 and place < 0xfffffffe
end

local function with_gate(list)
    if (list or ""):find("|", 1, true) then
        refuse("licences of which one is enough (" .. list .. ") do not go together with the licence " .. GATE
            .. ", with which jobs wait for VMs: ask for one of them", slurm.ESLURM_INVALID_LICENSES)
    end
    return with(list, GATE, GATE .. ":1")
end

-- Whether each user's last job was one of job mode. slurmctld has the parts of a heterogeneous one judged one
-- after another, the leader first.
local leads = {}

-- All parts wait with the leader, which is admitted with the others in job mode.
local function follows_leader(job, own)
    if not is_further_part(job) then
        leads[job.user_id] = own ~= nil
    elseif own and not leads[job.user_id] then
        refuse("the first part of a heterogeneous job with parts in partition " .. own .. " must be in a partition that "
            .. "gives VMs, too")
    end
end

-- A partition of job mode in a list, if there is one, and whether it stands there with others.
local function in_list(list)
    local count, own = 0, nil
    for name in (list or ""):gmatch("[^,]+") do
        count = count + 1
        if partitions[name] then
            own = name
        end
    end
    return own, count > 1
end

-- The partition of job mode that a request names, if it names one.
local function job_mode_partition(asked)
    local own, with_others = in_list(asked)
    if own and with_others then
        refuse("partition " .. own .. " gives each job VMs of its own, and is named alone or not at all, not as in "
            .. asked, INVALID_PARTITION)
    end
    return own
end

local function default_of(parts)
    for name, part in pairs(parts) do
        if part.flag_default == 1 then
            return name
        end
    end
end

-- The options for VMs of a text, as crates/core/src/options.rs reads them.
local function parse(text)
    local options, seen = {}, {}
    for word in text:gmatch("%S+") do
        local key, value = word:match("^([^=]*)=(.*)$")
        key, value = key or word, value or ""
        if seen[key] then
            refuse(key .. " is there twice")
        end
        seen[key] = true
        if key == "template" or key == "image" then
            if not value:match("^[A-Za-z0-9._-]+$") or #value > 128 then
                refuse(key .. "=" .. value .. ": use 1 to 128 of letters, digits, '.', '_' and '-'")
            end
            options[key] = value
        elseif key == "share" then
            local share = value:match("^%+?%d+$") and tonumber(value)
            if not share or share < 1 or share > 100 then
                refuse("share=" .. value .. " is not a percentage from 1 to 100")
            end
            options.share = share
        elseif word == "keep-on-failure" then
            options.keep = true
        else
            refuse('"' .. word .. '" is not an option for VMs: there are template=NAME, image=NAME, share=PERCENT and '
                .. "keep-on-failure")
        end
    end
    return options
end

local function written(options)
    local words = {}
    for _, key in ipairs({ "template", "image" }) do
        if options[key] then
            words[#words + 1] = key .. "=" .. options[key]
        end
    end
    if options.share then
        words[#words + 1] = ("share=%d"):format(options.share)
    end
    if options.keep then
        words[#words + 1] = "keep-on-failure"
    end
    return table.concat(words, " ")
end

-- Why a rule does not allow these options; nothing if it does.
local function refusal(options, rule)
    for _, key in ipairs({ "template", "image" }) do
        local asked, list = options[key], rule[key .. "s"]
        local allowed = asked == nil
        for _, name in ipairs(list) do
            allowed = allowed or name == asked
        end
        if not allowed then
            return key .. "=" .. asked .. " is not allowed, "
                .. (#list == 0 and "nor any other" or "only " .. table.concat(list, ", "))
        end
    end
    if options.share and not rule.share then
        return ("share=%d is not allowed, nor any other"):format(options.share)
    elseif options.share and (options.share < rule.share[1] or options.share > rule.share[2]) then
        return ("share=%d is not allowed, only %d to %d"):format(options.share, rule.share[1], rule.share[2])
    end
    if options.keep and not rule.keep_on_failure then
        return "keep-on-failure is not allowed"
    end
end

-- Whether a rule lets this user have these options: all of them by one rule.
local function check(options, partition, account, user)
    local text = written(options)
    if text == "" then
        return
    end
    local asker = "user " .. user .. " in partition " .. partition
    if account ~= "" then
        asker = asker .. " with account " .. account
    end
    local why
    for _, rule in ipairs(rules) do
        if (rule.partition or partition) == partition and (rule.account or account) == account
            and (rule.user or user) == user then
            why = refusal(options, rule)
            if not why then
                return
            end
        end
    end
    if why then
        refuse(why .. " for " .. asker, slurm.ESLURM_ACCESS_DENIED)
    end
    refuse("no rule ([[vm_options]] in thiao.toml) gives " .. asker .. " any option for VMs: ask your administrator, or "
        .. "leave " .. text .. " out", slurm.ESLURM_ACCESS_DENIED)
end

-- Up to 22.05 Slurm does not say of a job at the gate what it will get for its GPUs, and later not on which of
-- its nodes.
local function refuse_by_gpu(job, own)
    for field, words in pairs({
        cpus_per_tres = "CPUs by GPU (--cpus-per-gpu): give them by task (-c) or node (--mincpus)",
        mem_per_tres = "memory by GPU (--mem-per-gpu): give it by node (--mem) or CPU (--mem-per-cpu)",
    }) do
        if (job[field] or "") ~= "" then
            refuse("how big a VM is cannot be known before in partition " .. own .. " of " .. words, INVALID_GRES)
        end
    end
end

-- Whose jobs can run in the guests the controller tells in a file; without it nothing is known of that.
local USERS = SUBMITTED and SUBMITTED:match("^.*/") .. "users"

local function refuse_strangers(job)
    local file = USERS and io.open(USERS)
    if not file then
        return
    end
    local text = "\n" .. file:read("*a") .. "\n"
    file:close()
    if not text:find(("\n%d\n"):format(job.user_id), 1, true) then
        refuse(("user %s (uid %d) is not known in the VMs, and the job could not run there: ask an administrator to add "
            .. "you (users in thiao.toml)"):format(job.user_name or "?", job.user_id), slurm.ESLURM_ACCESS_DENIED)
    end
end

-- Without it the controller finds the job at its next observation.
local function tell_controller()
    local file = SUBMITTED and io.open(SUBMITTED, "w")
    if file then
        file:close()
    end
end

local function submit(job, parts)
    if select(2, without(job.licenses, GATE)) then
        refuse("the licence " .. GATE .. " is given by Slurm itself to jobs that wait for VMs: leave it out",
            slurm.ESLURM_INVALID_LICENSES)
    end
    -- Only batch jobs bring an environment.
    local text = job.script and job.environment[VARIABLE]
    if text then
        -- A job that submits another one hands its environment on.
        job.environment[VARIABLE] = USED
        text = text ~= USED and text or nil
    end
    local asked = job.partition or default_of(parts)
    local own = job_mode_partition(asked)
    if not own and text and not job.partition then
        if not default_partition then
            refuse("no partition gives each job VMs of its own")
        end
        own = default_partition
        job.partition = own
    end
    follows_leader(job, own)
    local options = parse(text or "")
    if not own then
        if written(options) ~= "" then
            refuse("partition " .. tostring(asked) .. " gives jobs no VMs of their own: leave " .. written(options)
                .. " out, or name another partition")
        end
        return
    end
    refuse_strangers(job)
    check(options, own, job.account or job.default_account or "", job.user_name or tostring(job.user_id))
    refuse_by_gpu(job, own)
    job.tres_per_node = with_vm(job.tres_per_node)
    if not (SINCE_23_02 and is_further_part(job)) then
        job.licenses = with_gate(job.licenses)
    end
    tell_controller()
    if written(options) ~= "" then
        job.admin_comment = PREFIX .. " " .. written(options)
    end
end

-- Called for each record of an array with the same request, as the one before left it.
local function modify(job, now)
    -- A list that it has already is not refused again: its user can name one of them.
    local was, with_others = in_list(now.partition)
    local own, comes = was, false
    if job.partition then
        own = job_mode_partition(job.partition)
        comes = own and (with_others or not was)
    end
    if comes then
        if not was and (now.het_job_id or 0) ~= 0 then
            refuse("a part of a heterogeneous job does not move to partition " .. own .. ", which gives VMs: submit it "
                .. "again")
        end
        refuse_by_gpu(now, own)
        job.tres_per_node = with_vm(job.tres_per_node or now.tres_per_node)
        job.licenses = with_gate(job.licenses or now.licenses)
    elseif was and not own then
        -- Slurm takes no generic resource off a job: with ours it would run nowhere else.
        refuse("a job does not leave partition " .. was .. ", which gives it VMs of its own: submit it again",
            INVALID_GRES)
    elseif own then
        refuse_by_gpu(job, own)
        if job.tres_per_node then
            job.tres_per_node = with_vm(job.tres_per_node)
        end
        if job.licenses then
            local waits = select(2, without(now.licenses, GATE))
            job.licenses = waits and with_gate(job.licenses) or (without(job.licenses, GATE))
        end
    elseif select(2, without(job.licenses, GATE)) then
        refuse("the licence " .. GATE .. " is given by Slurm itself", slurm.ESLURM_INVALID_LICENSES)
    end
end

function slurm_job_submit(job, parts, uid)
    local answer = ask_site("submit", job, parts, uid)
    if answer ~= slurm.SUCCESS then
        return answer
    end
    return guarded(submit, job, parts)
end

function slurm_job_modify(job, now, parts, uid)
    local answer = ask_site("modify", job, now, parts, uid)
    -- The controller is SlurmUser or root: it closes and opens the gate. To another partition nobody moves a job
    -- but by it.
    local may_all = (uid == 0 or uid == slurm_user) and not job.partition
    if answer ~= slurm.SUCCESS or may_all then
        return answer
    end
    return guarded(modify, job, now)
end

return slurm.SUCCESS
