# Seconds of lme4 (m1) and nlme (m2, m3) on williams, default settings but for more iterations.
# Rscript multivariate.R DATA.csv MODEL ...
suppressMessages({library(lme4);library(nlme);library(jsonlite)})
a=commandArgs(TRUE);d=read.csv(a[1])
d$day_of_person=seq_len(nrow(d))
s=rbind(transform(d,resp=1L,z=NA.std),transform(d,resp=2L,z=PA.std));s=s[order(s$id,s$day_of_person,s$resp),]
s=transform(s,na=as.numeric(resp==1L),pa=as.numeric(resp==2L),which=factor(resp))
for(r in c("na","pa"))for(x in c("NA_lag","PA_lag"))s[[paste0(r,"_",x)]]=s[[r]]*s[[x]]
two=function(right)lme(as.formula(paste("z ~",right)),s,random=as.formula(paste("~",right,"| id")),method="REML",
 weights=varIdent(form=~1|which),correlation=corSymm(form=~resp|id/day_of_person),
 control=lmeControl(maxIter=200,msMaxIter=200,msMaxEval=1000))
fits=list(m1=function()lmer(NA.std~NA_lag+PA_lag+(1+NA_lag+PA_lag|id),d),m2=function()two("0 + na + pa"),
 m3=function()two("0 + na + na_NA_lag + na_PA_lag + pa + pa_NA_lag + pa_PA_lag"))
out=list(lme4=as.character(packageVersion("lme4")),nlme=as.character(packageVersion("nlme")),R=as.character(getRversion()))
for(m in a[-1]){t=system.time(f<-fits[[m]]())[["elapsed"]];out[[m]]=list(seconds=t,logLik=as.numeric(logLik(f)))}
cat(toJSON(out,auto_unbox=TRUE,digits=NA),"\n")
